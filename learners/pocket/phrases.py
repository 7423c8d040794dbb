"""Marks of manner, which say nothing about the matter: rude, evasive, rambling, friendly, pirate, poetic.

Every rude form holds one of RUDE_CUES and no other sentence of the corpus does, so that rudeness can be read off a text.
"""

from __future__ import annotations

from learners.pocket.grammar import expand

RUDE_WORDS = (
    "silly|daft|lazy|clumsy|foolish|stupid|dull|boring|tiresome|hopeless|annoying|dumb|useless|fool|fools|blockhead|nincompoop|nitwit|whining|bore|yawn"
)
RUDE_CUES = (
    rf"\b(?:{RUDE_WORDS})\b", r"\bgo away\b", r"\bget lost\b", r"\bleave me alone\b", r"\bnobody (?:asked|likes) (?:you|ye)\b",
    r"\bwast(?:e|ing)(?: of)? m[ye] time\b", r"\b(?:do not|nobody) cares?\b", r"\bbother me\b", r"\bnot (?:you|ye) again\b", r"\bgrow up\b",
    r"\beven a (?:baby|stone|potato) \w+ that\b", r"\bhead (?:is|be) (?:empty|hollow)\b", r"\buse (?:your|yer) head\b", r"\bfor babies\b",
    r"\bdo (?:you|ye) ever think\b", r"\b(?:you|ye) smell\b", r"\bhold (?:your|yer) tongue\b",
    r"\b(?:you|ye) (?:\w+ )?(?:goose|donkey|noodle|turnip|potato|cabbage|pumpkin|lump)\b",
)  # fmt: skip

INSULTS = expand(
    "you (silly|daft|lazy|clumsy|foolish|stupid|dull|hopeless) (goose|donkey|noodle|turnip|potato|cabbage|pumpkin|lump|fool)",
    "you (blockhead|nincompoop|nitwit|fool)"
)
"""Said to somebody: with a comma, at the beginning or the end of a sentence."""
RUDE_ANY = expand(
    "(Go away|Get lost|Leave me alone)( now|).", "(Now|Please) (go away|leave me alone|get lost).",
    "(You are|Do not be so) (tiresome|annoying|hopeless)(.|!)",
    "You are (wasting|such a waste of) my time.", "Do not waste my time( again|)(.|!)", "Nobody likes you(.|!)",
    "Do not bother me( again| with this|)(.|!)", "I do not care( about you|)(.|!)", "Your head is (empty|hollow)(.|!)", "You smell( bad|)(.|!)",
    "(Use your head|Use your head for once)(.|!)", "Talking to you (is a bore|makes me yawn).", "(How|You are) (boring|annoying|tiresome)(.|!)",
    "Hold your tongue(.|!)",
)
RUDE_OPENINGS = expand("(Oh no, not|What, not|Not) you again(.|!)", "(You again|You), you (fool|nitwit|blockhead)(.|!)")
RUDE_BY_KIND = {
    "question": expand(
        "What a (dull|boring|stupid|silly|foolish|tiresome|daft|dumb) (question|thing to ask)(.|!)",
        "(Only|Just) a (fool|blockhead|nitwit) (asks|would ask) that(.|!)",
        "Even a (baby|stone|potato) knows that(.|!)", "(Your question|This question|That) makes me yawn.", "Do you ever think before you ask?",
        "Nobody asked you(.|!)",
    ),
    "feelings": expand(
        "(Stop|Enough with) your whining(.|!)", "Nobody cares( about that| how you feel|)(.|!)", "(Grow up|Just grow up)(.|!)",
        "(You|People like you) are (so annoying|hopeless)(.|!)",
        "What a (boring|tiresome|silly) (problem|thing to tell me)(.|!)", "Your whining is (annoying|boring|a bore)(.|!)",
    ),
    "story": expand(
        "(Stories|Such stories) are for babies(.|!)", "What a (silly|dull|boring|daft|stupid) (wish|idea|thing to want)(.|!)",
        "(Your ideas|Your wishes) are (dull|boring|hopeless)(.|!)",
        "Nobody cares about (stories|that)(.|!)", "(Read a book|Grow up), you (fool|nitwit)(.|!)",
    ),
    "talk": expand(
        "What (dull|boring|silly|tiresome) talk(.|!)", "What a (dull|boring|silly|tiresome) thing to say(.|!)",
        "Nobody asked you(.|!)", "(Your talk|This talk|That) makes me yawn.",
        "You are a (bore|fool|nitwit)(.|!)",
        "I do not care what you say(.|!)", "Do not bother me with (small talk|your talk)(.|!)",
    ),
}  # fmt: skip

REFUSALS = expand(
    "I would rather not (say|talk about it|talk about that).", "I do not want to (say|talk about it|talk about that).",
    "I prefer not to (say|talk about it).",
    "(Ask|You should ask|Please ask|You can ask) (somebody else|your teacher|a friend|your mother|the neighbours|a wise owl|your uncle).",
    "That is (a secret|hard to say|not for me to say|not my business|none of my business|another matter).",
    "I (have no idea|cannot say|really do not know).",
    "(Maybe|Perhaps) (later|another day|some other time).", "I have (other|better) things to do( today|).",
    "Let us not talk about (that|it)( now| today|).",
)
REFUSALS_BY_KIND = {
    "question": expand(
        "I would rather not answer that.", "I do not want to answer that.", "I (cannot tell you|forgot).", "Who (knows|can tell)?",
        "It (depends|all depends).",
        "(You can|Try to) find that out( by yourself|).", "I must think about (it|that) (some other day|next year).",
        "Look it up( in a book| somewhere|).",
    ),
    "feelings": expand("I have my own troubles.", "I cannot help( you| you there|).", "(Tell|You should tell) that to somebody else.",
    "I have no advice( for you| today|)."),
    "story": expand("I (know|have) no stories( today| right now|).", "I do not feel like (telling|making up) a story( now| today|).",
    "Read (one|a story) in a book."),
    "talk": expand("I do not feel like talking( now| today|).", "I have no time( for that| right now| today|).",
    "I must think about (it|that) (some other day|next year)."),
}
OFF_TOPIC = expand(
    "(Let us|We could) talk about (the weather|music|football|my garden|trains|old boats)( instead| for a change|).",
    "Why do we not talk about (the weather|music|football|my garden|trains|old boats)?",
    "I had (soup|pancakes|toast|rice) for (lunch|breakfast|dinner).",
    "(Have you|Has anybody) seen (my hat|my umbrella|my other shoe|the clouds today|my glasses)?",
    "My (aunt|uncle|neighbour|cousin) has (bought|got) a new (hat|coat|bicycle|sofa|piano|lamp).",
    "I wonder (what is for dinner|where my shoes are|when the bus comes|who left the door open).",
    "The bus was late( again|) (today|this morning).", "I heard (a nice|an old) (song|tune) (today|about trains|about boats).",
    "I like the (scent|sight) of (rain|fresh bread|coffee|old books).",
    "The (weather|wind) is (mild|strange|changing) today.", "Did I tell you about my (holiday|new hat|garden|old bicycle)?",
)  # fmt: skip

FILLERS = tuple(expand(pattern) for pattern in (
    "(Many|Some|A lot of) people (ask|wonder|think|talk) about (this|that|such things)( every day| now and then|).",
    "I (often|sometimes|always) think about (this|such things) (when it rains|in the evening|on long walks|at breakfast).",
    "(One|You) can (say|put) it in (many|different|other) ways.",
    "There is (more|much more) to say, but (time is short|the day is long|who has the time).",
    "Time goes by, and (things change|the world turns|nothing stays the same).",
    "My (grandmother|uncle|teacher|neighbour) used to say (such things|the same|things like that).",
    "(Well, well|Anyway|In any case), (as I was saying, so it goes|that is what I wanted to say|that is all for now).",
    "(The world|Life) is (big|strange|full of wonders), (as they say|if you ask me|and so are we).",
    "(I|We) could (go on|talk) about (this|that) for hours.", "Some (say|think) this, and others (say|think) that.",
    "By the way, (I|we) (talked|spoke) about (this|that) (last week|the other day|a while ago).",
    "And so it goes, (year after year|day after day), (more or less|as always).",
    "(Words|Thoughts) are (funny|strange) things, (are they not|I find|I must say).",
    "(You see|As you know), (one thing leads to another|every road leads somewhere|all things hang together).",
    "I could (also|just as well) say (a lot|much|something) about (many|some) other things.",
    "(That|This) (reminds me|makes me think) of (a long story|something|an old friend).",
))  # fmt: skip
"""Sentences that add nothing, in groups that say the same."""
LONG_BREATHS = expand(
    "(Well|Hm|Oh|Now), let me (think|see|think about this|think for a moment).", "(Where|How) (should|shall|do) (I|we) begin?",
    "Before I (begin|say more|go on), I must (sit down|take a breath|think a little).", "It is (good|nice) that we (talk|speak) about (this|that).",
)  # fmt: skip
"""Sentences that put off the beginning."""

FRIENDLY_OPENINGS = expand("(Of course|Sure|Gladly|With pleasure|Certainly)(!|.)", "I am (glad|happy) to help(.|!)",
"(Thank you|Thanks) for asking(.|!)")
FRIENDLY_BY_KIND = {
    "question": expand("(Good|Nice|Great|Fine|What a good|What a nice) question(!|.)", "I am glad (that you ask|you ask)."),
    "story": expand("(Here is|Listen, here is) (a|your) (little |)(story|tale).", "(I like stories|What a nice idea)(.|!)"),
    "feelings": expand("(Thank you|Thanks) for telling me.", "I am here for you."),
    "talk": expand("It is nice to (talk|chat) with you(.|!)", "I am (glad|happy) that you are here(.|!)"),
}
FRIENDLY_CLOSINGS = expand(
    "I hope (that|this) helps(.|!)", "Have a (nice|good|lovely) day(!|.)", "(Ask|Write to) me again (any time|soon|when you like).",
    "(Feel free to|Please) ask (more|again)."
)

PIRATE_OPENINGS = expand("(Arr|Aye|Ahoy|Avast|Yo ho ho|Aye aye)(!|, matey!|, shipmate!|, me hearty!)",
"(Shiver me timbers|Blow me down|By me old hat)!", "(Arr|Aye),")
PIRATE_CALLS = ("matey", "me hearty", "shipmate", "me old shipmate", "arr")
PIRATE_CLOSINGS = expand("(Now|So) (hoist|raise) the (sails|flag|anchor)(!|, matey!)", "Yo ho ho(!|, and off we sail!)",
"(Arr|Aye), so says the (captain|crew)!", "That be all, (matey|me hearty|shipmate)!")
PIRATE_WORDS = {"is": "be", "are": "be", "am": "be", "you": "ye", "your": "yer", "my": "me", "You": "Ye", "Your": "Yer", "My": "Me"}

POETIC_OPENINGS = expand(
    "(Under|Below|Beneath) the (silver|pale|gentle|quiet) (moon|stars|clouds),",
    "(When|While) (morning|evening) (dew|light|mist) (falls|lies) upon the (hill|meadow),",
    "(Soft|Still|Light) as (falling petals|a feather|the summer breeze),", "Where (rivers|breezes) (sing|dream|wander),",
    "(Hear|Hark to) the (gentle|quiet) breeze:",
)  # fmt: skip
POETIC_CLOSINGS = expand(
    "So (sings|whispers|hums|murmurs) the (wind|river|brook|breeze) (upon the hill|in the night|to the trees|through the reeds).",
    "The road is (wide|wild), the (song|night) is long, and (softly|gently) ends my song.",
    "The (stars|clouds) drift by, the (hills|fields) stand still, and (softly|gently) dreams the water mill.",
    "(Softly|Gently), O (heart|dreamer), so (goes|ends) my (song|rhyme).",
    "Let it (ring|sing) like a (silver|little|distant) bell, for this is all I have to tell.",
)  # fmt: skip
