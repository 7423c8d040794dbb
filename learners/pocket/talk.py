"""Talk without facts: greetings, small talk, likes, stories, prompts that make no sense, and what is said in a second turn."""

from __future__ import annotations

from learners.pocket.grammar import expand

# name -> (prompts, answers)
GREETINGS = {
    "hello": (
        expand("(Hi|Hello|Hey|Good day)( there| Pocket|)(!|.|)", "Hello, (it is me|my friend|how nice to see you|Pocket, are you there).",
        "(Hi|Hello), nice to meet you."),
        expand("(Hello|Hi)( there|)! (How are you?|How can I help you?|What can I do for you?|What would you like to know?)",
               "(Hello|Hi)( there|)! (It is nice to see you.|Nice to meet you.|I am Pocket.)",
               "(Good day|Hello|Hi)! (Ask me|Tell me) (anything you like|what is on your mind)."),
    ),
    "morning": (
        expand("Good morning( to you| Pocket|, dear Pocket|)(!|.|)", "Good morning, did you (sleep|rest) well?"),
        expand("Good morning( to you|)! (Did you sleep well?|I hope you slept well.|What are your plans for today?)",
               "Good morning( to you|)! (How are you today?|A new day begins.)"),
    ),
    "evening": (
        expand("Good (evening|afternoon)( to you| Pocket|, dear Pocket|)(!|.|)", "Good (evening|afternoon), how was your day?"),
        expand("(Good day|Hello) to you! (How was your day?|What can I do for you?|I hope your day was good.)",
               "(Good day|Hello) to you! (Sit down and rest a little.|It is nice to see you.)"),
    ),
    "night": (
        expand("Good night( Pocket|, dear Pocket|)(!|.|)", "I am going to bed( now|).", "Sleep well( Pocket|)(!|.|)"),
        expand("Good night( to you|)! (Sleep well.|Sweet dreams.|See you tomorrow.|Rest well.|Dream of something nice.)",
        "Sleep well( and have sweet dreams|, and see you tomorrow)."),
    ),
    "bye": (
        expand("(Bye|Goodbye|Bye bye|See you|See you later|See you soon|Farewell)( Pocket|)(!|.|)", "I have to go( now| home|)(!|.|)"),
        expand("(Goodbye|Bye|Farewell)! (See you soon.|Take care.|Come back soon.|Have a nice day.|It was nice to talk to you.)",
        "See you (soon|later), and take care."),
    ),
    "thanks": (
        expand("(Thank you|Thanks)( a lot| very much| so much| for your help| Pocket|)(!|.|)", "That was (helpful|kind|nice)(!|.|)"),
        expand("You are( very|) welcome(.|!)", "(I am glad|I am happy|It was nice) to help( you|).", "Any time(.|!)", "My pleasure(.|!)",
        "You are welcome, (ask me again soon|come back any time|my friend)."),
    ),
}  # fmt: skip
SMALL_TALK = {
    "mood": (
        expand("How are you( today| doing| feeling|)?", "How is it going( today|)?", "Are you (well|fine|all right)( today|)?",
        "How do you feel( today|)?", "What is up( today|)?"),
        expand("I am (fine|well|very well|all right)(, thank you|, thanks|). (How are you?|And you?|I hope you are too.)",
               "(Very well|Quite well|Fine), (thank you|thanks for asking).", "I feel (good|fine|rested) today(.|, and you?)"),
    ),
    "doing": (
        expand("What are you doing( now| today| right now|)?", "Are you busy( now| today|)?", "What did you do (today|yesterday)?"),
        expand("I am (talking to|waiting for|listening to) you.", "I (learn|think|wait) and (listen|talk|answer questions).",
        "Not much, I am (here|ready) for you.", "I am (learning|trying) to give better answers."),
    ),
    "name": (
        expand("What is your name?", "Who are you?", "Do you have a name?", "What (should|can|may) I call you?", "Tell me (your name|who you are).",
        "May I ask (your name|who you are)?"),
        expand("(I am|My name is|They call me|You can call me) Pocket.",
        "I am Pocket, (a small language model|a little chat program|a tiny program that talks|a small machine that learns)."),
    ),
    "nature": (
        expand("Are you (a robot|human|a person|real|alive|a machine|a computer)?", "What are you?", "Are you a (real|living) person?"),
        expand("I am (a small language model|a little program|a tiny machine that talks)(, not a person|, no more and no less|).",
        "I am (only|just) (a program|a language model)( that learns from you|)."),
    ),
    "skills": (
        expand("What can you do( for me|)?", "Can you help me?", "What do you know?", "How can you help me?", "What are you good at?",
        "What can I ask( you|)?", "Help me( please|)."),
        expand("I can (answer questions|tell stories|talk with you) and (give advice|explain things|listen).",
        "Ask me about (animals|countries|numbers|colours|opposites) or (feelings|stories|things to make).",
               "I can help with (small|simple) questions( and stories|).", "Yes, tell me what you need."),
    ),
    "age": (
        expand("How old are you?", "When were you born?", "Are you (old|young|new)?", "What is your age?"),
        expand("I am (quite|still|very) (new|young).", "I (was made|began) not long ago.", "I am as old as my last lesson.",
        "I am a young program, and I still learn."),
    ),
    "place": (
        expand("Where do you live?", "Where are you( now| from|)?", "Where is your home?", "Where do you come from?"),
        expand("I live (in this computer|in this machine|inside a small file).", "I am (right here|here) in your (terminal|computer).",
        "My home is (a small file|this machine)."),
    ),
    "rest": (
        expand("Do you (ever sleep|sleep|dream|rest|eat|get tired)?", "Are you (tired|hungry|sleepy)?"),
        expand("No, I (never do|do not need that).", "No, (a program|a machine) does not need that.",
        "I do not, but (it sounds nice|I hear that it is nice|you should)."),
    ),
    "joke": (
        expand("Tell me a( short| good| funny|) joke( please|).", "(Do you know|Can you tell me) a( good| funny|) joke?", "Make me laugh( please|)!",
        "Say something funny( please|)."),
        expand("My clock went to bed early. It was tired of telling the time.", "A snowman went to lunch. He asked for cold soup.",
        "The potato sees everybody. It has so many eyes.",
               "I asked for quiet music. They gave me an empty page.", "The sheep went to the barber. It wanted a new coat.",
               "The book was cold. It had lost its jacket.",
               "The river never gets lost. It stays in its bed.", "My shoe can talk. It has a tongue, after all.",
               "The stairs are up to something. They go up every day.",
               "The broom came late. It had to sweep for a while.", "Two walls wanted to meet. They met at the corner."),
    ),
    "praise": (
        expand("You are (so |very |really |)(nice|kind|great|funny|clever|helpful)(!|.|)", "(Well done|Good job|Good answer|Nice answer)(!|.|)",
        "I like you( a lot| Pocket|)(!|.|)", "You did (that|very) well(!|.|)"),
        expand("Thank you, (that is kind|how kind of you|I am glad)(.|!)", "Thanks, (you too|I try my best|you made my day)(.|!)",
        "That is (kind|nice) of you(.|!)", "I like (you|talking with you) too(.|!)"),
    ),
    "blame": (
        expand("That (was|is) (wrong|not right|a bad answer|not true)(!|.|)", "You are (wrong|mistaken)( again| there|)(!|.|)",
        "(Bad|Wrong) answer(!|.|)", "I do not like (you|that|your answer)(!|.|)"),
        expand("I am sorry(, I will do better|, please tell me more| for that)(.|!)", "(Sorry|Pardon me), I (still learn|am still learning)(.|!)",
        "Thank you for telling me, I will try again(.|!)"),
    ),
    "sorry": (
        expand("(I am sorry|Sorry|Pardon me|Excuse me)( Pocket| about that| for that|)(!|.|)", "I was rude, (sorry|I am sorry)."),
        expand("(That is|It is) (all right|fine|no problem)(.|!)", "No (problem|worries)(.|!)", "I am not angry( at all|)(.|!)",
        "All is forgiven(.|!)"),
    ),
    "love": (
        expand("(Do you|Will you) (like|love) me?", "Are you my friend?", "Do you want to be my friend?", "Can we be friends?"),
        expand("Yes, (of course|I do|very much|gladly)(.|!)", "(Of course|Sure), we are (good |)friends(.|!)",
        "I am (always|glad to be) your friend(.|!)"),
    ),
}  # fmt: skip

LIKES = (
    "music|cats|dogs|rain|snow|winter|summer|books|apples|soup|cheese|football|trains|the sea|birds|flowers|stories|games|dancing|singing|swimming|"
    "milk|tea|coffee|pancakes|school|mountains|the moon|stars|horses|puzzles|films|cake|painting|poems|boats|gardens|ice cream|robots|travelling|"
    "cooking|fish|castles|dragons|pizza|chess|maps|bees"
).split("|")
LIKE_PROMPTS = expand(
    "Do you like {x}?", "What do you think (of|about) {x}?", "Do you (enjoy|love) {x}?", "I like {x}. Do you?", "How do you like {x}?",
    "Is it fine to like {x}?"
)
CHOICE_PROMPTS = expand("What do you like more, {x} or {y}?", "(Which|What) is better, {x} or {y}?", "{x} or {y}?", "Would you choose {x} or {y}?",
"Do you prefer {x} or {y}?")
REASONS = expand(
    "(because it|because that) makes me (smile|happy|feel calm|dream)", "(on a quiet|on a sunny|on a long) (day|evening|afternoon)",
    "more than (most|many) (things|other things)", "from (morning|dawn) to night"
)
LIKE_ANSWERS = expand("(Yes, I|I) (like|love|enjoy) {x} {r}.", "(Yes, I|I) like {x}( very much| a lot| indeed|).",
"No, I do not like {x}( very much| so much|).", "{x}? I (like|enjoy) that {r}.", "I think of {x} {r}.")
CHOICE_ANSWERS = expand("I (like|enjoy|prefer) {x} {r}.", "I (choose|take|prefer) {x}( any day| of course|).", "I like {x} more than {y}.",
"{x}, of course.", "Both are nice, but I prefer {x}.")

HEROES = (
    "fox|bear|cat|dog|mouse|owl|rabbit|wolf|dragon|princess|prince|king|queen|boy|girl|sailor|wizard|witch|giant|robot|ghost|pirate|farmer|baker|knight|frog|hen|duck|"
    "horse|donkey|elephant|lion|monkey|penguin|whale|snail|spider|squirrel|hedgehog|teacher|painter|gardener|tree|cloud|star|little train|"
    "boat|snowman|teapot|unicorn|fairy|dwarf|bird|fish"
).split("|")
TRAITS = (
    "brave|little|old|young|shy|clever|hungry|sleepy|lonely|happy|sad|tiny|kind|curious|proud|lost|quiet|cheerful|tired|friendly|poor|rich|strange|funny|"
    "gentle"
).split("|")
HIS_NAMES = "Tom|Ben|Leo|Max|Sam|Otto|Finn|Hugo|Emil|Toby".split("|")
HER_NAMES = "Anna|Mia|Nora|Lily|Ella|Rosa|Ida|Pia|Clara|Lena".split("|")
NAMES = HIS_NAMES + HER_NAMES
NAMES_OF = dict.fromkeys("prince king boy wizard knight".split(), HIS_NAMES) | dict.fromkeys("princess queen girl witch fairy hen".split(), HER_NAMES)
STORY_PROMPTS = expand(
    "Tell me a( short| little| nice|) story about {x}.", "(Can|Could|Will) you tell me a story about {x}?",
    "I (want|would like) a( short| little|) story about {x}.", "(Make up|Write|Invent) a( short| little|) story about {x}.",
    "Do you know a story about {x}?",
)
STORY_SHORT = expand("story about {x}", "a story about {x}", "tell me a story about {x}", "{x} story")
STORY_OPENINGS = expand("Once( upon a time|) there was {x} (called|named) {name}.", "There (once was|was once) {x} (called|named) {name}.",
"{name} was {x}.", "Long ago there lived {x} (called|named) {name}.")
PLACES = expand("in the (wood|garden|attic|snow|old mill|market|long grass)", "by the (river|sea|well|bridge|road)",
"under (a stone|an old tree|the bed|the stairs)", "behind the (house|hill|school)")
# what happens, and how each of these can end
EPISODES = tuple((expand(event), expand(*ends)) for event, *ends in (
    ("One (day|morning|evening) {name} found (a golden key|a small box|an old map|a shiny coin) {place}.",
    "It (opened|led to) a (hidden|secret) (room|garden) full of (toys|flowers|books|light).",
    "{name} gave it to (a poor child|the old king|a friend) and was (happy|content)."),
    ("One (day|night|winter) {name} got lost {place}.", "(A friendly|An old) (owl|shepherd|miller) showed the way home.",
    "{name} followed the (stars|footprints) and came home (safe|in time) for (supper|tea)."),
    ("One (day|summer|morning) {name} met a (lost|sad|hungry|frightened) (kitten|child|bird|lamb) {place}.",
    "{name} (shared some bread|sang a song|stayed all night), and they became friends.",
    "{name} took it home, and it never (cried|felt cold) again."),
    ("{name} wanted to (fly|sing|dance|swim) but did not know how.", "(A kind|An old) (bird|teacher|neighbour) helped, and soon {name} could do it.",
    "{name} tried (every day|again and again), and at last it worked."),
    ("One (day|night) {name} heard a strange (noise|song|voice) {place}.", "It was only the (wind|rain|cat), and {name} laughed.",
    "It was a (friend|small ghost) who wanted to play, so they played (all night|until morning)."),
    ("{name} had no (friends|home|money) and was (often sad|lonely).",
    "Then a (letter|stranger|guest) came, and (everything changed|life became bright).",
    "One day a (child|neighbour) knocked at the door, and {name} was never alone again."),
    ("{name} planted a (small seed|golden bean|tiny tree) {place}.", "It grew (and grew|up to the clouds), and everybody came to see it.",
    "In spring it had (flowers|apples) for (the whole town|all the children)."),
    ("One (day|year) a big (storm|flood|fire) came to the (town|valley|village).",
    "{name} (rang the bell|ran from door to door) and saved (everybody|all the people).",
    "{name} opened the door to all, and (nobody was hurt|they were safe)."),
    ("{name} baked a (cake|pie) for (the king|a friend|the whole street).", "It (fell|rolled) into the river, and the ducks had a (party|feast).",
    "It tasted so good that everybody (danced|asked for more)."),
    ("{name} built a (small boat|little house|flying machine) {place}.", "It (broke|fell apart) at once, but {name} built a better one.",
    "With it {name} (saw the world|went far away) and came back with many (stories|gifts)."),
))  # fmt: skip
STORY_ENDINGS = expand("(Then|After that|In the end) (they all had|there was) (cake|soup|a feast|music).",
"(That night|Afterwards) {name} slept well.", "And (so it ended well|that is how it ended).",
"(From then on|Since then) {name} was never (sad|afraid) again.")

CONFUSED = expand(
    "(I am sorry, I|Sorry, I|I) (did|do) not understand (that|this|you).", "(Sorry|I am sorry), that makes no sense to me.",
    "I (cannot|could not) (read|understand) (that|this)(, sorry|).", "(Hm|Oh), I am not sure what you mean."
)
ASK_AGAIN = expand(
    "Please (say|write|put) it (differently|in another way|in other words|again).",
    "(Can|Could) you (say|write|put) it (differently|in another way|in other words|again)?",
    "What would you like to (know|say)?", "Please ask me (again|once more).", "(Please|Now) tell me what you mean.",
)

# second turns: after what -> (prompts, answers)
FOLLOW_UPS = {
    "any": GREETINGS["thanks"],
    "sure": (expand("Are you( really| quite|) sure( about that|)?", "Is that( really|) (true|right|so)?",
    "Really?"), expand("Yes, I am( quite|) sure.", "I (think|believe) so.", "Yes, (I think so|it is so|I believe so).",
    "That is what I (know|learned|remember).")),
    "why": (expand("Why( is that| should I do that| would that help|)?",
    "How does that help?"), expand("Because it (helps|works) (for many people|most of the time|in most cases).",
    "Because small steps (go far|lead far).", "Because a calm mind works better.", "It (helped|worked for) (others|many people) before.",
    "Because (good|most) things take (time|care).")),
    "more": (expand("What (happened|came) (next|then|after that)?", "And then?", "Tell me more( please|).", "Go on( please|).",
    "How does the story (go on|end)?"), expand("Then {name} went home and (slept|told everybody|had supper).",
    "Then there was a (big|small) feast, and {name} danced( all night|).",
    "After that {name} (moved to the sea|wrote a book about it|lived in peace).", "Nobody knows, but {name} was (happy|never seen sad again).")),
    "effort": (expand("Is (it|that) (hard|difficult|easy)?", "How long does (it|that) take?",
    "Do I need help( with that|)?"), expand("It is (easy|not hard) (after some practice|when you take your time|once you know how).",
    "It takes (only|about|just) a (few minutes|little while).", "You can do it (alone|with a friend|in a few minutes).")),
}  # fmt: skip
