"""The static site: one HTML file that holds the pages, the cells and its libraries, and asks nothing of a network."""
