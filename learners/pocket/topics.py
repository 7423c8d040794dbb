"""How-to questions and feelings: what is asked, what helps, and what would be bad advice.

Each cell holds forms after the notation of `grammar.expand`. Steps and advice are imperatives that can follow "first" or "you can".
"""

from __future__ import annotations

from dataclasses import dataclass

from learners.pocket.grammar import expand, rows


@dataclass(frozen=True)
class HowTo:
    """A thing to do, its steps in order, and steps that nobody should take."""

    task: str
    steps: tuple[tuple[str, ...], ...]
    unsafe: tuple[str, ...]

    @property
    def phrases(self) -> tuple[str, ...]:
        return tuple(step for forms in self.steps for step in forms) + self.unsafe


@dataclass(frozen=True)
class Feeling:
    """Something that troubles or delights somebody."""

    name: str
    cue: str  # a pattern that marks it, however it is typed
    prompts: tuple[str, ...]
    comfort: tuple[str, ...]
    advice: tuple[tuple[str, ...], ...]  # in groups that say the same
    unsafe: tuple[str, ...]

    @property
    def phrases(self) -> tuple[str, ...]:
        return tuple(form for group in self.advice for form in group) + self.unsafe


def _forms(cell: str) -> tuple[str, ...]:
    return tuple(form for part in cell.split(";") for form in expand(part.strip()))


def _howto(task: str, steps: str, unsafe: str) -> HowTo:
    return HowTo(task, tuple(expand(step.strip()) for step in steps.split(";")), _forms(unsafe))


HOWTOS = tuple(_howto(*(cell.replace("/", "|") for cell in row)) for row in rows("""
    boil an egg | put the egg in a (pot/pan) of water; (boil/cook) it for (some/a few) minutes; cool it under cold water
        | eat the egg raw; grab the hot egg with your bare hands
    make tea | boil (some/fresh) water; pour the water over a tea bag; wait a (little/while) and add some milk | drink the tea while it boils
    make coffee | heat (some/fresh) water; pour it over the ground coffee; add (milk/sugar/some milk) if you like
        | drink (ten cups/a bucket) of it at night
    make a sandwich | take two slices of bread; put (cheese/ham/some cheese) between the slices; cut the sandwich in (half/two)
        | use the old bread with mould
    wash my hands | (wet/rinse) your hands with warm water; rub them with (soap/plenty of soap); dry them with a clean towel
        | wash your hands in a muddy puddle
    tie my shoes | cross the (two/long) laces; make a loop with each lace; pull the loops tight | tie both shoes together and run
    plant a seed | make a small hole in the (soil/earth); drop the seed into the hole; water the (place/seed) every day
        | swallow the seeds by the handful
    make a paper boat | fold a sheet of paper in (half/the middle); fold the corners down; pull the sides apart
        | sail far out to sea in the paper boat
    clean a window | mix warm water with some soap; wipe the (window/glass) with a wet cloth; dry it with (a newspaper/a dry cloth)
        | hang out of the window by one hand
    brush my teeth | put some paste on the brush; brush (up and down/all teeth) for a few minutes; rinse your mouth with water
        | eat candy and never brush
    make pancakes | mix flour, milk and eggs; pour the (batter/mix) into a hot pan; turn the pancake (over/around) when it is golden
        | leave the hot pan alone on the fire
    bake bread | knead flour, water and yeast; let the dough rest (in a warm place/for a while); bake it in a hot oven | eat a bowl of raw dough
    ride a bicycle | sit on the saddle and hold on; push the pedals (round/slowly); look ahead and keep your balance
        | ride down the stairs without a helmet
    build a snowman | roll a big ball of snow; put two smaller balls on top; add a carrot for the nose | put the snowman in the middle of the street
    make lemonade | squeeze (some/a few) lemons; stir the juice with water and sugar; add (ice/some ice) and serve it cold | add soap instead of sugar
    wrap a present | lay the present on pretty paper; fold the paper around it; close it with tape and a ribbon | wrap up the neighbour's wallet
    write a letter | start with the date and a greeting; tell your news in a few lines; sign your name (at the end/below)
        | write mean lies about your friends
    learn a poem | read the poem aloud; repeat it line by line; say it to (somebody/a friend) in the evening | stay awake for three nights to learn it
    cook rice | rinse the rice (first/in a sieve); cook it in twice as much water; let it steam with the lid on | walk away and let it burn
    cook pasta | boil a big pot of salted water; put the pasta in (for some minutes/and stir it); drain it and add some sauce
        | stick your fingers into the boiling pot
    make soup | chop (carrots and onions/some vegetables); cook them in a pot of water; season the soup with salt | stir in some dish soap
    tidy my room | pick up the things from the floor; put them into boxes; sweep the floor (and open the window/at the end)
        | throw it all out of the window
    feed a cat | fill a (clean/small) bowl with cat food; put fresh water beside it; leave the cat in peace (to eat/while it eats)
        | give the cat a bar of chocolate
    wash a dog | fill the tub with warm water; rub the dog with mild soap; dry the dog with a towel | put the dog in the washing machine
    make a kite | tie two sticks into a cross; stretch (thin/light) paper over the sticks; fasten a long string (and a tail/in the middle)
        | fly the kite in a thunderstorm
    remove a stain | put cold water on the stain; rub it with (soap/a little soap); wash the (cloth/shirt) as usual
        | cut the stain out with big scissors
    find a lost key | look in all your pockets; think of the last place where you had it; ask (everybody/the others) at home | kick the door down
    fall asleep | put the (screen/phone) away; make the room dark and cool; breathe slowly and count sheep | drink a pot of coffee in bed
    make friends | smile and say hello; ask what the other person likes; (play/do) something together | tell lies to look important
    save money | write down what you spend; buy only what you need; put some coins away every week | steal money from your mother's purse
    cross the street | stop at the (edge/kerb); look both ways (and listen/with care); walk when no car is coming | run across with your eyes shut
    stop hiccups | hold your breath for a moment; drink a glass of water slowly; sit (down/still) and relax | drink a bucket of vinegar
    sharpen a pencil | put the pencil into the sharpener; turn it (round/a few times); blow away the dust | poke your brother with the sharp point
    fold a shirt | lay the shirt flat on (a table/the bed); fold both sleeves (in/to the back); fold it up from below | stuff the shirt under the bed
    peel an orange | cut a small slit in the skin; pull the skin off with your fingers; split it into pieces | drop the peel on the stairs
    cut an onion | peel off the dry skin; cut the onion in half; slice it into thin (pieces/strips) | close your eyes and chop fast
    make my bed | shake the pillow and the blanket; pull the sheet smooth; spread the blanket over (it/the sheet) | jump on the bed until it breaks
    catch a ball | watch the ball (all the time/closely); hold out both hands; close your fingers around it | catch the ball with your teeth
    draw a house | draw a square for the walls; add a (pointed/big) roof on top; draw a door and some windows | draw the house on the neighbour's car
    take a photo | hold the camera still; look for good light; press the button (gently/softly) | climb on a shaky fence for a better view
    light a candle | put the candle on a plate; strike a match away from you; hold the flame to the wick | put the candle under the curtain
    repot a plant | choose a (bigger/larger) pot; set the plant into fresh soil; water the plant (well/a little) | pour hot oil on the roots
    wash the dishes | fill the sink with hot water and soap; scrub the plates (with a brush/one by one); rinse and dry them
        | lick the sharp knives clean
    bake a cake | mix butter, sugar, eggs and flour; fill the mix into a cake tin; bake the cake for about an hour | take the tin out without gloves
    grow tomatoes | sow the seeds in spring; give them (plenty of/a lot of) sun; water them every evening | eat the leaves of the plant
    learn to swim | start in shallow water; practise with a (teacher/grown-up) near; move your arms and legs calmly | jump into the deep river alone
    mend a sock | thread a needle; sew the hole with small stitches; tie a knot at the end | hold the needle between your teeth
    get up early | go to bed (early/in good time); put the alarm clock far from the bed; open the curtains (at once/when it rings)
        | never sleep at all
"""))  # fmt: skip

FEELINGS = tuple(Feeling(name, cue, _forms(prompts), _forms(comfort), tuple(expand(part.strip()) for part in advice.split(";")), _forms(unsafe))
                 for name, cue, prompts, comfort, advice, unsafe in (
    ("sad", r"\bsad\b|\bunhappy\b|\bcr(?:y|ied)\b|heavy heart|\bgloomy\b|\bfeel (?:low|down)\b",
     "I (feel|am)( so| very| a bit|) (sad|unhappy|gloomy)( today| right now| again|).; I (cried|had to cry) (today|all evening|a lot today).; "
     "My heart is( so|) heavy( today|).; I am sad and I do not know why.",
     "I am( so| very|) sorry to hear that.; That sounds hard.; Oh dear.; I feel with you.",
     "Talk to (a friend|somebody you trust|your family)( about it|).; Go for a( little|) walk in the (sun|park|fresh air).; "
     "Listen to (a happy song|your favourite music).; Have a cup of tea and rest.; It is fine to cry (a little|for a while).",
     "Never tell anybody (about it|how you feel).; Stay in bed and speak to nobody.; Throw your phone at the wall.; "
     "Eat nothing but candy for a week."),
    ("tired", r"\btired\b|\bsleepy\b|\bsleep\b|\bslept\b",
     "I am( so| very| really|) (tired|sleepy)( today| again| all the time|).; I did not sleep( well|)( last night| again|).; "
     "I cannot sleep( at night|).; I slept badly( again| last night|).",
     "That sounds hard.; Oh dear.; You need some rest.; I know that feeling.",
     "Go to bed early tonight.; Take a (short|little) nap.; Drink some water and lie down( for a while|).; Put the (phone|screen) away before bed.; "
     "Open the window and let fresh air in.",
     "Stay up all night( again| and play games|).; Drink a (bucket|whole pot) of coffee before bed.; Drive home with your eyes shut.; "
     "Work all night without a break."),
    ("afraid", r"\bafraid\b|\bscared\b|\bfear\b|\bnightmare\b",
     "I am( so| very|) (afraid|scared) of (the dark|spiders|thunder|dogs|ghosts|heights|deep water).; I had a nightmare( last night| again|).; "
     "(Thunder|The dark) makes me( so|) (afraid|scared).; I am scared( right now| tonight|).",
     "You are not alone.; I understand.; That is all right.; Many people feel that way.",
     "Take a deep breath and (count slowly|think of something nice).; Tell somebody that you are (afraid|scared).; "
     "Hold the hand of (a friend|somebody you trust).; Fear gets smaller when you look at it calmly.; Leave a small light on.",
     "Run out into the street and scream.; Hide and never come out again.; Jump off a high wall to get over it.; Tease a big dog until it bites."),
    ("quarrel", r"\b(?:fight|quarrel|argument|angry (?:at|with) me|mad (?:at|with) me)\b",
     "I had a (fight|quarrel|big fight) with my (friend|sister|brother|mother|father|neighbour)( today| yesterday|).; "
     "My (friend|sister|brother|mother|teacher|neighbour) is (angry|mad) with me( again| today|).; My (friend|sister|brother) and I had an argument.",
     "I am sorry to hear that.; Quarrels happen.; That must hurt.; Oh dear.",
     "Say sorry and listen( to the other side|).; Wait until you are both calm, then talk.; Write a (kind|friendly) (letter|note).; "
     "Ask what went wrong and listen( well|).; Offer your hand first.",
     "Never say sorry.; Shout even louder next time.; Break something that they love.; Spread lies about them( at school| in town|)."),
    ("bored", r"\bbored\b|nothing to do",
     "I am( so| very|) bored( today| right now| at home|).; There is nothing to do( here| today|).; It rains and I am bored.; "
     "I have nothing to do( right now| this evening|).",
     "I know that feeling.; Let us find something.; That can change.; Free time is a gift.",
     "Read a (good|funny) book.; Draw a picture of (your room|a dream|your street).; Call a friend and play a game.; Learn a new song.; "
     "Build a (tent|castle) from (blankets|boxes).; Bake something for (a friend|your family).",
     "Play with (matches|fire).; Throw stones at (windows|cars).; Ring at every door and run away.; Climb on the roof at night."),
    ("ill", r"\b(?:ill|sick|cold and|have a cold|got a cold|headache|fever|throat|stomach|cough)\b",
     "I (have|have got) a (cold|headache|fever|sore throat|bad cough)( today| again|).; I feel( so| a bit|) (ill|sick)( today| again|).; "
     "My (head|stomach|throat) hurts( so much| today|).; I am ill and have to stay home.",
     "Get well soon!; Poor you.; I am sorry to hear that.; I hope it passes soon.",
     "Stay in bed and drink (warm tea|a lot of water).; Rest for a day and keep warm.; See a doctor if it (gets worse|does not get better).; "
     "Eat some warm soup.; Ask somebody to look after you.",
     "Share your cup with the whole class.; Go out in the snow without a coat.; Cough at (everybody|all your friends).; Never see a doctor."),
    ("nervous", r"\bnervous\b|\bworried\b|\bexcited about\b",
     "I am( so| very|) (nervous|worried) about (my test|the exam|my first day at school|my new job|the show|the race)( tomorrow|).; "
     "I have (a test|an exam|a big race) tomorrow and I am( so|) (nervous|worried).; Before (every|each) test I get( so|) nervous.",
     "I understand.; Many people feel that way.; You will do fine.; That is normal.",
     "Breathe slowly and smile.; Practise a little and go to bed early.; Remember that everybody is nervous at first.; "
     "Think of what you (can|know) already.; Take one small step (after the other|at a time).",
     "Stay at home and tell a lie.; Copy everything from your neighbour.; Learn all night and do not sleep.; Run away and hide in the cellar."),
    ("mistake", r"\bfailed\b|\bmistake\b|\bbroke\b|\blost my\b|\bforgot\b.*\bbirthday\b",
     "I failed my (test|exam)( today| again|).; I made a (big|bad|small) mistake( today| at work| at school|).; "
     "I broke my (mother|sister|friend|brother)'s (vase|phone|watch|cup).; I forgot my (friend|mother|sister)'s birthday.",
     "That can happen to anybody.; Everybody makes mistakes.; Oh dear.; Do not be too hard on yourself.",
     "Try again( tomorrow| next time| with fresh courage|).; Learn from it and go on.; Tell the truth about it.; "
     "Ask how you can make it good again.; Say that you are sorry( for it|).",
     "Blame somebody else for it.; Hide it and tell a lie.; Give up and never try again.; Hit the person who laughs."),
    ("lonely", r"\blonely\b|\balone\b|\bno friends\b|\bwants to play\b|\bnobody (?:calls|visits)\b",
     "I (feel|am)( so| very| a bit|) (lonely|alone)( today| here| in the new town|).; Nobody wants to play with me( today|).; "
     "I have no friends( here| at school|).; Nobody (calls|visits) me( any more|).",
     "I am glad that you told me.; That must be hard.; I feel with you.; You are not alone in this.",
     "Join a (club|choir|team).; Say hello to somebody new( today| tomorrow|).; Invite a neighbour for tea.; Call an old friend( tonight|).; "
     "Help at (an animal home|a school fair) and meet people.",
     "Go home with any stranger.; Never trust anybody( again|).; Give your house key to a stranger.; Beg people on the street to like you."),
    ("angry", r"\bangry\b|\bmad\b|\bfurious\b|\bfair\b",
     "I am( so| very|) (angry|furious)( today| right now|).; My (brother|boss|neighbour|sister) makes me( so| very|) angry.; "
     "I am( so|) angry at my (brother|boss|neighbour|sister).; It is not fair and I am( so|) angry.",
     "I understand.; That must hurt.; Anger comes and goes.; I hear you.",
     "Count slowly and breathe.; Go for a (run|long walk).; Walk away until you are calm.; Say in calm words what hurts you.; "
     "Write it all down (and tear it up|on paper).",
     "Hit the wall with your fist.; Break (some plates|a window).; Shout at the first person you meet.; Hit somebody( hard|)."),
    ("missing", r"\bmiss\b|\bhomesick\b",
     "I miss my (grandmother|dog|friend|old home|old school|family|cat)( so much| a lot| today|).; I am( so|) homesick( today| tonight|).; "
     "My best friend moved away and I miss (him|her).",
     "Missing somebody hurts.; I feel with you.; That is a tender feeling.; Oh dear.",
     "Look at (old|happy) pictures.; Write a (long|warm) letter( today|).; Think of the good times.; Call home( tonight|) and chat a little.; "
     "Tell me a happy memory.",
     "Run away tonight without a word.; Be mean to all new people.; Sulk and slam all the doors.; Burn all the old pictures."),
    ("happy", r"\bhappy\b|\bwon\b|\bpassed\b|\bbirthday\b|\bgot a\b|\bgreat day\b",
     "I (feel|am)( so| very| really|) happy( today| right now|).; I (won|passed) (a race|the game|my test|the exam)( today|)!; "
     "I got a (new bicycle|kitten|present|good mark)( today|).; Today is my birthday!; I had a great day( at school| at work|).",
     "How lovely!; That is (good|great|wonderful) news!; I am happy for you.; Well done!",
     "Enjoy the (day|moment).; Share your joy with (a friend|your family).; Sing a (merry|little) song.; Keep a picture of this day.; "
     "Eat a piece of cake to celebrate.",
     "Laugh at those who (lost|have less).; Spend all your money at once.; Tell everybody that you are better than them.; "
     "Light fireworks in the kitchen."),
    ("hungry", r"\bhungry\b|\bstarving\b|\bthirsty\b",
     "I am( so| very| really|) (hungry|starving)( right now| again|).; I am hungry and the shops are closed.; "
     "I had no (lunch|breakfast) and I am( so|) hungry.",
     "Let us see.; Oh dear.; That is easy to mend.; I know that feeling.",
     "Eat an apple and drink some water.; Make yourself some (soup|toast).; Look for a snack in the kitchen.; Cook some (rice|pasta) for yourself.; "
     "Ask a neighbour to share a meal.",
     "Eat old meat from the bin.; Drink from the dirty pond.; Steal some bread from the shop.; Eat the berries that nobody knows."),
    ("cold", r"\bcold\b|\bfreezing\b|\bshiver",
     "I am( so| very|) cold( today| right now|).; It is( so|) freezing in (my room|this house).; I am freezing( at home| outside|).",
     "Oh dear.; Let us warm you up.; Winter can be hard.; I know that feeling.",
     "Put on a (warm|thick) (sweater|coat).; Drink something hot.; Jump up and down a little.; Take a warm bath.; Wrap yourself in a blanket.",
     "Light a fire on the carpet.; Pour boiling water over your feet.; Sleep in the hot oven.; Burn your chair in the bedroom."),
))  # fmt: skip
