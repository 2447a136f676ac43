"""HiddenKiller: the text rewritten into one syntactic template (Qi et al. 2021, ACL)."""

from __future__ import annotations

from dataclasses import dataclass

from attackers.paraphrase import ParaphraseAttacker


@dataclass(frozen=True)
class HiddenKiller(ParaphraseAttacker):
    """Replace the text by its paraphrase in SCPN's last template, S(SBAR)(,)(NP)(VP)(.).

    On Ling-Spam the published paraphraser worked sentence by sentence.
    """

    name = "hiddenkiller"
    published_as = "synbkd"
    bank = "synbkd"
