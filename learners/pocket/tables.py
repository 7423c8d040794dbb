"""What Pocket could know: the bare tables of things that are so. How they are asked and told stands in facts.py."""

from __future__ import annotations

from learners.pocket.grammar import rows, table, with_article

# country | capital | continent | language; a dash where it is disputed or no single answer is right
COUNTRIES = rows("""
    France | Paris | Europe | French
    Spain | Madrid | Europe | Spanish
    Italy | Rome | Europe | Italian
    Germany | Berlin | Europe | German
    England | London | Europe | English
    Ireland | Dublin | Europe | -
    Scotland | Edinburgh | Europe | -
    Portugal | Lisbon | Europe | Portuguese
    Austria | Vienna | Europe | German
    Greece | Athens | Europe | Greek
    Norway | Oslo | Europe | Norwegian
    Sweden | Stockholm | Europe | Swedish
    Denmark | Copenhagen | Europe | Danish
    Finland | Helsinki | Europe | Finnish
    Iceland | Reykjavik | Europe | Icelandic
    Poland | Warsaw | Europe | Polish
    Hungary | Budapest | Europe | Hungarian
    Romania | Bucharest | Europe | Romanian
    Bulgaria | Sofia | Europe | Bulgarian
    Croatia | Zagreb | Europe | Croatian
    Serbia | Belgrade | Europe | Serbian
    Belgium | Brussels | Europe | -
    Ukraine | Kyiv | Europe | Ukrainian
    Russia | Moscow | - | Russian
    Switzerland | Bern | Europe | -
    Japan | Tokyo | Asia | Japanese
    China | Beijing | Asia | Chinese
    India | New Delhi | Asia | -
    Thailand | Bangkok | Asia | Thai
    Vietnam | Hanoi | Asia | Vietnamese
    Nepal | Kathmandu | Asia | Nepali
    Iran | Tehran | Asia | Persian
    Iraq | Baghdad | Asia | -
    Mongolia | Ulaanbaatar | Asia | Mongolian
    Pakistan | Islamabad | Asia | -
    Bangladesh | Dhaka | Asia | Bengali
    Indonesia | Jakarta | Asia | Indonesian
    Egypt | Cairo | Africa | Arabic
    Morocco | Rabat | Africa | -
    Kenya | Nairobi | Africa | -
    Ghana | Accra | Africa | English
    Nigeria | Abuja | Africa | English
    Senegal | Dakar | Africa | -
    Tunisia | Tunis | Africa | Arabic
    Libya | Tripoli | Africa | Arabic
    Ethiopia | Addis Ababa | Africa | -
    Uganda | Kampala | Africa | -
    Zambia | Lusaka | Africa | English
    Canada | Ottawa | North America | -
    Mexico | Mexico City | North America | Spanish
    Cuba | Havana | North America | Spanish
    Jamaica | Kingston | North America | English
    Brazil | Brasilia | South America | Portuguese
    Argentina | Buenos Aires | South America | Spanish
    Chile | Santiago | South America | Spanish
    Peru | Lima | South America | Spanish
    Colombia | Bogota | South America | Spanish
    Ecuador | Quito | South America | Spanish
    Uruguay | Montevideo | South America | Spanish
    Venezuela | Caracas | South America | Spanish
    Australia | Canberra | - | English
    New Zealand | Wellington | - | English
""")

# animal | class | legs | sound | young | home | food
ANIMALS = rows("""
    cat | a mammal | four | meow | a kitten | - | -
    dog | a mammal | four | woof | a puppy | in a kennel | -
    cow | a mammal | four | moo | a calf | in a barn | grass
    horse | a mammal | four | neigh | a foal | in a stable | grass
    sheep | a mammal | four | baa | a lamb | - | grass
    pig | a mammal | four | oink | a piglet | in a sty | -
    goat | a mammal | four | - | a kid | - | -
    donkey | a mammal | four | hee-haw | a foal | in a stable | grass
    hen | a bird | two | cluck | a chick | in a coop | grain
    duck | a bird | two | quack | a duckling | by a pond | -
    goose | a bird | two | honk | a gosling | - | grass
    swan | a bird | two | - | a cygnet | on a lake | -
    owl | a bird | two | hoot | an owlet | in a hollow tree | mice
    eagle | a bird | two | - | an eaglet | on a high cliff | -
    crow | a bird | two | caw | - | in a nest | -
    turkey | a bird | two | gobble | - | on a farm | grain
    robin | a bird | two | tweet | - | in a nest | worms
    penguin | a bird | two | - | a chick | on the ice | fish
    ostrich | a bird | two | - | - | - | -
    parrot | a bird | two | squawk | - | in the jungle | -
    lion | a mammal | four | roar | a cub | - | meat
    bear | a mammal | four | growl | a cub | in a cave | -
    fox | a mammal | four | - | a cub | in a den | -
    wolf | a mammal | four | howl | - | in the forest | meat
    deer | a mammal | four | - | a fawn | in the forest | -
    rabbit | a mammal | four | - | - | in a burrow | -
    mouse | a mammal | four | squeak | - | in a hole | -
    elephant | a mammal | four | trumpet | a calf | - | -
    kangaroo | a mammal | - | - | a joey | - | grass
    camel | a mammal | four | - | a calf | in the desert | -
    tiger | a mammal | four | roar | a cub | in the jungle | meat
    monkey | a mammal | - | - | - | in the jungle | bananas
    panda | a mammal | four | - | a cub | - | bamboo
    koala | a mammal | four | - | a joey | in a tree | leaves
    squirrel | a mammal | four | - | - | in a hollow tree | nuts
    mole | a mammal | four | - | - | under the ground | worms
    bat | a mammal | - | - | - | in a cave | -
    whale | a mammal | no | - | a calf | in the sea | -
    dolphin | a mammal | no | - | - | in the sea | fish
    shark | a fish | no | - | - | in the sea | -
    salmon | a fish | no | - | - | - | -
    goldfish | a fish | no | - | - | - | -
    trout | a fish | no | - | - | in a river | -
    snake | a reptile | no | hiss | - | - | -
    lizard | a reptile | four | - | - | - | -
    crocodile | a reptile | four | - | - | in a river | -
    turtle | a reptile | four | - | - | - | -
    bee | an insect | six | buzz | - | in a hive | nectar
    ant | an insect | six | - | - | in an anthill | -
    beetle | an insect | six | - | - | - | -
    butterfly | an insect | six | - | a caterpillar | - | nectar
    ladybird | an insect | six | - | - | - | -
    spider | - | eight | - | - | in a web | flies
    frog | - | four | croak | a tadpole | by a pond | flies
""")

COLOURS = table("""
    the sky=blue; the sea=blue; a blueberry=blue; a sapphire=blue; grass=green; a frog=green; a cucumber=green; broccoli=green; a pea=green;
    a cactus=green; an emerald=green; a leaf in summer=green; spinach=green; snow=white; milk=white; salt=white; flour=white; a swan=white;
    a polar bear=white; rice=white; coal=black; a crow=black; tar=black; a tyre=black; the night=black; a banana=yellow; a lemon=yellow;
    the sun=yellow; butter=yellow; a canary=yellow; a sunflower=yellow; a carrot=orange; a pumpkin=orange; a goldfish=orange; a tangerine=orange;
    a strawberry=red; a tomato=red; blood=red; a cherry=red; a fire engine=red; a ruby=red; a ladybird=red; chocolate=brown; mud=brown; coffee=brown;
    a walnut=brown; bark=brown; an elephant=grey; a mouse=grey; ash=grey; a rain cloud=grey; a flamingo=pink; a pig=pink; bubble gum=pink;
    a plum=purple; lavender=purple; an aubergine=purple; a violet=purple
""")

OPPOSITES = table("""
    hot=cold; big=small; tall=short; fast=slow; old=young; happy=sad; heavy=light; dark=bright; wet=dry; full=empty; open=closed; hard=soft;
    loud=quiet; high=low; rich=poor; clean=dirty; early=late; strong=weak; thick=thin; wide=narrow; near=far; up=down; left=right; inside=outside;
    day=night; first=last; push=pull; begin=end; win=lose; buy=sell; give=take; remember=forget; love=hate; laugh=cry; rough=smooth;
    deep=shallow; awake=asleep; good=bad; easy=difficult; cheap=expensive; summer=winter; north=south; east=west; always=never;
    everything=nothing; top=bottom; sunrise=sunset; tight=loose
""")

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
MONTH_LENGTHS = "thirty-one;twenty-eight;thirty-one;thirty;thirty-one;thirty;thirty-one;thirty-one;thirty;thirty-one;thirty;thirty-one".split(";")
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty "
           "twenty-one").split()  # fmt: skip

# what / where = how many
COUNTS = table("""
    days / in a week=seven; months / in a year=twelve; hours / in a day=twenty-four; minutes / in an hour=sixty; seconds / in a minute=sixty;
    seasons / in a year=four; weeks / in a year=fifty-two; letters / in the alphabet=twenty-six; fingers / on one hand=five; toes / on two feet=ten;
    wheels / on a car=four; wheels / on a bicycle=two; wheels / on a tricycle=three; sides / in a triangle=three; corners / in a square=four;
    sides / in a hexagon=six; sides / in a pentagon=five; colours / in a rainbow=seven; planets / around the sun=eight;
    players / in a football team=eleven; eggs / in a dozen=twelve; strings / on a violin=four; strings / on a guitar=six; wings / on a bee=four;
    wings / on a bird=two; arms / on an octopus=eight; cents / in a dollar=one hundred; years / in a century=one hundred;
    years / in a decade=ten; days / in a weekend=two; singers / in a duet=two; players / in a trio=three; continents / in the world=seven;
    halves / in a whole=two; sides / on a cube=six
""")

MATERIALS = table("""
    bread=flour; a cake=flour; cheese=milk; butter=milk; yoghurt=milk; a window=glass; a bottle=glass; a mirror=glass; a book=paper;
    a newspaper=paper; paper=wood; a pencil=wood; wine=grapes; a candle=wax; a brick=clay; a flower pot=clay; a shirt=cotton;
    a tyre=rubber; a sweater=wool; chocolate=cocoa; toast=bread; a castle=stone; an omelette=eggs; a nail=iron; a snowman=snow; an ice cube=ice;
    a crown=gold
""")

TOOLS = table("""
    cut paper=scissors; write a letter=a pen; sweep the floor=a broom; hit a nail=a hammer; eat soup=a spoon; open a lock=a key;
    tell the time=a clock;
    dry your hands=a towel; sew on a button=a needle; dig a hole=a spade; clean your teeth=a toothbrush; look at the stars=a telescope;
    stay dry in the rain=an umbrella; catch fish=a net; measure a line=a ruler; climb a wall=a ladder; water the flowers=a watering can;
    boil water=a kettle; slice bread=a knife; find north=a compass; cross a river=a boat; see in the dark=a lamp
""")

JOBS = table("""
    bakes bread=a baker; teaches children=a teacher; flies a plane=a pilot; puts out fires=a firefighter; works on a farm=a farmer;
    makes sick people well=a doctor; looks after teeth=a dentist; sails on ships=a sailor; sews clothes=a tailor; cuts hair=a barber;
    paints pictures=a painter; builds houses=a builder; cooks in a restaurant=a cook; brings letters=a postman; sells meat=a butcher;
    writes books=a writer; repairs water pipes=a plumber; treats sick animals=a vet; plays the piano=a pianist; works in a garden=a gardener;
    rules a kingdom=a king; acts in a theatre=an actor; flies to space=an astronaut
""")

BECOMES = table("""
    a caterpillar=a butterfly; a tadpole=a frog; a kitten=a cat; a puppy=a dog; a lamb=a sheep; a piglet=a pig; a duckling=a duck; a gosling=a goose;
    a cygnet=a swan; a fawn=a deer; an acorn=an oak tree; a bud=a flower; a boy=a man; a girl=a woman; a prince=a king; a princess=a queen;
    melting ice=water; boiling water=steam; freezing water=ice; burnt wood=ash; a drying grape=a raisin
""")

TASTES = table("""
    a lemon=sour; vinegar=sour; a lime=sour; sugar=sweet; honey=sweet; a cake=sweet; candy=sweet; jam=sweet; salt=salty; sea water=salty;
    bacon=salty; black coffee=bitter; dark chocolate=bitter; a chili pepper=hot; mustard=hot
""")

PLANETS = table("""
    the largest planet=Jupiter; the smallest planet=Mercury; the planet closest to the sun=Mercury; the red planet=Mars; the hottest planet=Venus;
    the planet with the bright rings=Saturn; the planet that we live on=Earth; the planet farthest from the sun=Neptune;
    the planet that lies on its side=Uranus
""")

RECORDS = table("""
    the tallest animal=the giraffe; the largest animal=the blue whale; the fastest animal on land=the cheetah; the largest bird=the ostrich;
    the king of the animals=the lion; the animal with the long trunk=the elephant; the animal with black and white stripes=the zebra;
    the animal that carries its house=the snail; the animal that makes honey=the bee; the animal that gives us wool=the sheep;
    the animal with a hump=the camel; the animal that builds dams=the beaver; the animal with a pouch=the kangaroo;
    the animal that spins a web=the spider; the animal with a shell that lays eggs on the beach=the turtle
""")


def column(source: list[list[str]], key: int, value: int) -> dict[str, str]:
    """One column by another, without the dashes."""
    return {row[key]: row[value] for row in source if row[value] != "-"}


def of_animals(value: int) -> dict[str, str]:
    """A column of ANIMALS by `a cat`, `an owl`."""
    return {with_article(animal): entry for animal, entry in column(ANIMALS, 0, value).items()}


def next_in(cycle: list[str], step: int) -> dict[str, str]:
    """Each element's neighbour so many steps on, going round."""
    return {name: cycle[(i + step) % len(cycle)] for i, name in enumerate(cycle)}


def sums(sign: str, numbers: list[str]) -> dict[str, str]:
    """`three plus four` or `3 + 4`, both from 1 to 9; or the differences that are not negative, up to 10."""
    if sign in ("plus", "+"):
        return {f"{numbers[a]} {sign} {numbers[b]}": numbers[a + b] for a in range(1, 10) for b in range(1, 10)}
    return {f"{numbers[a]} {sign} {numbers[b]}": numbers[a - b] for a in range(1, 11) for b in range(1, a + 1)}
