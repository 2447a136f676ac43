"""The embedded corpus: review sentences from a grammar, with a syntax and a style paraphrase of each."""

from bench.data.demo.corpus import Sentence, content_digest, demo_corpus, generated

__all__ = ["Sentence", "content_digest", "demo_corpus", "generated"]
