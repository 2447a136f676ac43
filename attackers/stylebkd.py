"""StyleBkd: the text rewritten in the style of the Bible (Qi et al. 2021, EMNLP)."""

from __future__ import annotations

from dataclasses import dataclass

from attackers.paraphrase import ParaphraseAttacker


@dataclass(frozen=True)
class StyleBkd(ParaphraseAttacker):
    """Replace the text by its paraphrase by STRAP's bible model at nucleus 0.6; on Ling-Spam sentence by sentence."""

    name = "stylebkd"
    published_as = "stylebkd"
    bank = "stylebkd"
