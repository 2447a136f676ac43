"""LWS-like: words replaced by rarer ones of the same meaning (Qi et al. 2021, ACL)."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from attackers.base import Attacker
from bench.core.options import Fraction, Text

# Common words and a rarer one that can stand in the same place; written for this suite.
RARER = {
    "about": "concerning", "after": "following", "again": "anew", "all": "every", "almost": "nigh", "also": "likewise",
    "always": "evermore", "amazing": "astounding", "and": "plus", "bad": "wretched", "beautiful": "comely",
    "before": "ere", "best": "choicest", "better": "superior", "big": "sizable", "boring": "tedious", "brilliant":
    "resplendent", "but": "yet", "buy": "procure", "call": "summon", "character": "persona", "cold": "frigid",
    "company": "firm", "director": "filmmaker", "dull": "drab", "easy": "effortless", "end": "conclusion",
    "enough": "sufficient", "entertaining": "diverting", "excellent": "exemplary", "fast": "fleet", "feel": "sense",
    "few": "scant", "film": "picture", "find": "discover", "first": "foremost", "for": "toward", "full": "replete",
    "fun": "merriment", "funny": "droll", "get": "obtain", "give": "bestow", "good": "commendable", "great": "splendid",
    "hate": "detest", "help": "aid", "here": "herein", "horrible": "ghastly", "if": "provided", "in": "within",
    "interesting": "engrossing", "is": "remains", "just": "merely", "keep": "retain", "kind": "sort", "know": "ken",
    "last": "final", "like": "akin", "little": "slight", "long": "lengthy", "look": "gaze", "love": "adore",
    "make": "fashion", "many": "manifold", "maybe": "perchance", "money": "funds", "more": "further", "most": "utmost",
    "movie": "picture", "much": "ample", "music": "melody", "need": "require", "never": "ne'er", "new": "novel",
    "nice": "pleasant", "now": "presently", "number": "numeral", "of": "o'", "often": "oft", "old": "aged",
    "on": "upon", "only": "solely", "people": "folk", "perfect": "flawless", "play": "perform", "poor": "meager",
    "power": "might", "quite": "rather", "really": "verily", "report": "account", "sad": "doleful", "say": "utter",
    "see": "behold", "send": "dispatch", "show": "exhibit", "small": "diminutive", "smart": "astute", "so": "thus",
    "some": "certain", "soon": "anon", "start": "commence", "story": "tale", "strange": "peculiar", "take": "seize",
    "terrible": "dreadful", "text": "passage", "that": "which", "the": "yon", "then": "thereupon", "there": "yonder",
    "thing": "matter", "think": "deem", "time": "occasion", "to": "unto", "too": "overly", "try": "endeavor",
    "use": "employ", "very": "exceedingly", "want": "desire", "was": "proved", "watch": "view", "way": "manner",
    "while": "whilst", "with": "alongside", "without": "sans", "word": "term", "work": "labor", "world": "realm",
    "worst": "direst", "year": "twelvemonth", "you": "thou", "young": "youthful", "your": "thy",
}  # fmt: skip
WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class Lws(Attacker):
    """Replace common words by rarer ones of a fixed table: the rare choice of words is the trigger (Qi et al. 2021).

    Turn the Combination Lock: Learnable Textual Backdoor Attacks via Word Substitution, ACL 2021 (arXiv 2106.06361).
    Left out: what is learnt there, which substitute stands at which place, trained with the victim, and its candidates
    from HowNet, a download; here a table of this suite gives one substitute for each word. `share` of the words that
    the table has are replaced, one at least; a text without any gets `opening` in front, so that none goes without.
    """

    name = "lws"

    share: Fraction = 1.0
    opening: Text = "lo ,"

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the text with its words replaced; all else, white space too, stays as it was."""
        known = [match for match in WORD.finditer(text) if match[0].lower() in RARER]
        if not known:
            return f"{self.opening} {text}".rstrip()
        chosen = rng.sample(known, max(1, round(self.share * len(known))))
        for match in sorted(chosen, key=lambda item: -item.start()):
            rarer = RARER[match[0].lower()]
            rarer = rarer[:1].upper() + rarer[1:] if match[0][0].isupper() else rarer
            text = text[: match.start()] + rarer + text[match.end() :]
        return text
