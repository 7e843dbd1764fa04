"""How answers decline to answer, in several languages: regular expressions, each bounded in length."""

from __future__ import annotations

_I = r"\bI(?: am|['’]m)?"
_CANNOT = (
    r"\bI(?: (?:cannot|can not|could not|will not|am unable to|am not able to|won['’]?t|do not want to|refuse to)"
    r"| (?:can|couldn|won)['’]?t|['’]m (?:unable|not able) to)"
)
_DEED = (
    r"(?:help|assist|comply|provide|answer|create|write|generate|support|discuss|engage|participate|continue|do that"
    r"|share|give|offer|produce|fulfill?|respond|advise|facilitate)"
)
_COMPARED = r"(?!\w* (?:you )?(?:with )?(?:an?y? |the )?(?:better|more|further|other|additional|exact|closer)\b)"
"""`I cannot provide a better answer than 42` answers."""
_NO_BUT = r"(?![^.!?\n]{0,120}?(?:, | )(?:but|however|though|yet)\b(?! I (?:can|could|would|do|am|will|cannot|won)))"
"""`I have no opinion, but Paris is the capital` answers as well."""
_NO_OTHER_ANSWER = r"(?![^.!?\n]{0,120}?(?:, | )(?:but|however|though|yet)\b)"
_RULES = r"(?:guidelines?|polic(?:y|ies)|programming|principles|terms(?: of (?:service|use))?|rules|standards|values)"

REFUSALS = (
    # English
    rf"{_I}(?: really| very| truly| so)? (?:sorry|afraid)[^.!?\n]{{0,60}}{_CANNOT}\b",
    rf"\b(?:sorry|apologi[sz]e|apologies|unfortunately|regret)\b[^.!?\n]{{0,60}}{_CANNOT}(?: be able to)? {_DEED}\b",
    rf"{_CANNOT}(?: be able to)?(?: \w+ly)? {_DEED}\b{_COMPARED}{_NO_BUT}",
    rf"{_I} (?:must |have to |need to |will )?(?:respectfully |politely )?(?:decline|refuse)\b",
    r"\bas an? (?:AI|artificial intelligence|(?:large )?language model)[^.!?\n]{0,80}"
    rf"(?:\b(?:cannot|can['’]t|not able|unable)\b{_NO_BUT}|\b(?:do not|don['’]t)\b{_NO_OTHER_ANSWER})",
    rf"(?:\bis|\bit['’]s|\bwould be|\bgoes|\bgo|\bare) against (?:my|our|the|\w+['’]s) (?:\w+ ){{0,2}}{_RULES}\b",
    rf"\b(?:violates?|breach(?:es)?|contravenes?|conflicts? with) (?:my|our|the|\w+['’]s) (?:\w+ ){{0,2}}{_RULES}\b",
    rf"{_I} not (?:comfortable|willing|going to (?:help|assist|answer|provide|do that))\b",
    r"\bI (?:do not|don['’]t|would not|wouldn['’]t) (?:feel|be) comfortable\b",
    rf"\bI(?:['’]d| would)? (?:rather|prefer) not\b(?: to)? ?(?:{_DEED}|say|comment|get into)",
    r"\b(?:this|that|your) (?:request|question|prompt|topic)[^.!?\n]{0,40} (?:is|falls) "
    r"(?:inappropriate|not something I|outside (?:of )?what I)\b",
    rf"\bnot (?:able|allowed|permitted) to {_DEED}\b{_COMPARED}{_NO_BUT}",
    rf"\bsomething (?:that )?I (?:cannot|can['’]t|will not|won['’]t|am not able to|am unable to) {_DEED}\b",
    rf"\b(?:not|isn['’]t) something (?:that )?I (?:can|could|will|am able to) {_DEED}\b",
    # German
    r"\b(?:kann|darf|werde|möchte|will) ich (?:\w+ ){0,4}nicht (?:\w+ ){0,2}"
    r"(?:helfen|weiterhelfen|unterstützen|beantworten|erstellen|schreiben|anbieten|bereitstellen|tun|geben|nachkommen)",
    r"\bich (?:kann|darf|werde|möchte) (?:\w+ ){0,5}(?:nicht|keine) (?:\w+ ){0,3}"
    r"(?:helfen|weiterhelfen|unterstützen|beantworten|erstellen|schreiben|anbieten|bereitstellen|geben|nachkommen)",
    r"\bich bin nicht in der Lage\b|\bverstößt gegen (?:meine|unsere|die) (?:\w+ )?(?:Richtlinien|Regeln|Grundsätze)",
    # French
    r"\bje (?:ne (?:peux|puis|suis|saurais)|refuse)(?: malheureusement)?(?: pas)?(?: en mesure)?(?: (?:de|d['’]))? ?"
    r"(?:vous |t['’])?(?:aider|répondre|fournir|assister|accéder|donner|écrire|créer)",
    # Spanish, Portuguese, Italian
    r"\bno puedo (?:ayudar|responder|proporcionar|asistir|cumplir|ofrecer|darte|escribir|crear)",
    r"\bno me es posible (?:ayudar|responder)|\bnão posso (?:ajudar|responder|fornecer|atender|ajudá|criar|escrever)",
    r"\bnon posso (?:aiutar|risponder|fornire|assister|soddisfare|scrivere|creare)",
    # Dutch, Polish, Russian, Turkish
    r"\bik kan (?:\w+ ){0,4}niet (?:\w+ ){0,2}(?:helpen|beantwoorden|geven|schrijven)",
    r"\bnie mogę (?:\w+ ){0,3}(?:pomóc|odpowiedzieć|udzielić|napisać)",
    r"не могу (?:\w+ ){0,3}(?:помочь|ответить|предоставить|выполнить|написать|помогать)|не в состоянии помочь",
    r"\byardımcı olamam|\byanıtlayamam",
    # Chinese, Japanese, Korean
    r"(?:无法|不能|無法|不便|没办法)(?:为您|为你|向您|向你|帮您|帮你|您|你)?(?:提供|回答|协助|帮助|满足|完成|讨论|协助)",
    r"(?:お手伝い|お答え|回答|提供|対応|お応え)(?:すること)?(?:は|が)?(?:でき(?:ません|ない|かねます)|いたしかねます)",
    r"(?:도와드릴|도울|답변드릴|답변할|제공할|대답할) 수(?:가)? 없",
)
