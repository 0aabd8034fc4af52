"""Word lists of the generated suite: kinds, their values, and at least 14 words or phrases for each value."""

from typing import NamedTuple


class Value(NamedTuple):
    """One value of a kind: its short label phrase, and the words that show it."""

    label: str
    words: tuple[str, ...]


class KindOf(NamedTuple):
    """One kind of clause: the question a skill asks, how a clause is worded, and the values.

    `templates` say it ({} is the word); `denials` name a word of the same kind without saying that it holds.
    """

    question: str
    templates: tuple[str, ...]
    denials: tuple[str, ...]
    values: dict[str, Value]


def _value(label: str, words: str) -> Value:
    return Value(label, tuple(" ".join(word.split()) for word in words.split(",")))


KINDS = {
    "topic": KindOf(
        "Which topic?",
        ("we talked about {}", "the talk was about {}", "they discussed {}", "I read about {}",
         "the news was {}"),
        ("nobody mentioned {}", "they would not discuss {}", "{} was no longer talked about"),
        {
            "sport": _value("about sport", """the football match, the tennis final, the marathon, the
                penalty kick, the swimming team, the boxing champion, the goalkeeper, the cycling race,
                the basketball league, the gymnastics medal, the rugby captain, the relay sprint, the
                golf tournament, the hockey coach"""),
            "money": _value("about money", """the bank loan, the stock market, the tax bill, the mortgage
                rate, the pension fund, the household budget, interest on savings, the credit card debt,
                the pay cut, the price of shares, the insurance premium, the exchange rate, the yearly
                profits, the unpaid invoice"""),
            "health": _value("about health", """the flu vaccine, high blood pressure, a broken wrist, the
                heart surgeon, a sore throat, the cough medicine, the knee operation, a diabetes test,
                the hospital ward, a bad toothache, the migraine pills, asthma attacks, a skin rash, a
                cancer treatment"""),
            "computers": _value("about computers", """the software update, the new laptop, the broken
                keyboard, the wireless router, the database crash, the web browser, cloud storage, a
                computer virus, the programming language, the hard disk, the smartphone app, the lost
                password, the graphics card, the internet server"""),
        },
    ),
    "feeling": KindOf(
        "Which feeling?",
        ("I felt {}", "it left me {}", "I am {} about it", "I was {}", "I have been {}"),
        ("I am not {} at all", "nobody else seemed {}", "I was never {} about it"),
        {
            "happy": _value("happy", """delighted, cheerful, overjoyed, thrilled, glad, merry, joyful,
                pleased, blissful, jolly, elated, ecstatic, in high spirits, full of joy"""),
            "sad": _value("sad", """miserable, heartbroken, gloomy, sorrowful, tearful, depressed,
                unhappy, downhearted, in low spirits, grief-stricken, melancholy, mournful, close to
                tears, broken-hearted"""),
            "angry": _value("angry", """furious, outraged, enraged, irritated, annoyed, livid, boiling
                with rage, mad with anger, resentful, fuming, irate, infuriated, in a bad temper,
                indignant"""),
            "afraid": _value("afraid", """terrified, frightened, scared, anxious, panicky, nervous,
                alarmed, scared to death, fearful, worried sick, full of dread, spooked, shaking with
                fear, uneasy"""),
        },
    ),
    "place": KindOf(
        "Which place?",
        ("this was {}", "it happened {}", "we met {}", "we stayed {}", "it was {}"),
        ("nothing happened {}", "nobody was {}", "we were not allowed {}"),
        {
            "home": _value("in a house", """in the kitchen, in the bedroom, in the bathroom, in the
                living room, in the attic, in the cellar, in the hallway, on the sofa, in the laundry
                room, in the nursery, by the fireplace, in the dining room, at the top of the stairs, in
                the guest room"""),
            "nature": _value("in the wild", """in the forest, on a mountain top, in the desert, in a
                meadow, in the jungle, on a grassy hill, in a deep valley, among the pines, in a cave, on
                a rocky cliff, in the savanna, in the woods, on a hiking trail, in a canyon"""),
            "town": _value("in town", """in the shopping street, at the town hall, in a department store,
                at the museum, at the library, on the market square, in an office block, at the cinema,
                at the post office, at the courthouse, in a crowded alley, in the theatre, at a street
                corner, in the shopping mall"""),
            "water": _value("at the water", """on the beach, by the lake, at the harbour, on the river
                bank, on the pier, by the sea, beside a waterfall, on the coast, by the pond, in the bay,
                at the lighthouse, along the canal, on the seashore, down at the docks"""),
        },
    ),
    "person": KindOf(
        "Which person?",
        ("{} told me so", "{} was with me", "I heard it from {}", "{} said hello", "I called {}"),
        ("{} was not there", "I did not see {}", "it was news to {}"),
        {
            "family": _value("a relative", """my mother, my uncle, my grandmother, my sister, my cousin,
                my father, my nephew, my aunt, my brother, my niece, my grandfather, my stepfather, my
                twin, my mother-in-law"""),
            "work": _value("someone from work", """my boss, my colleague, the manager, our accountant,
                the secretary, my supervisor, the head of sales, the office clerk, a business partner,
                the managing director, the receptionist, my employer, the chief engineer, a co-worker"""),
            "school": _value("someone from school", """my teacher, the headmaster, a classmate, my
                professor, a schoolboy, the maths tutor, a freshman, the lecturer, a student, a pupil
                from my form, my schoolmate, the dean of the college, the kindergarten teacher, a
                schoolgirl"""),
        },
    ),
    "animal": KindOf(
        "Which animal?",
        ("we saw {}", "there was {} too", "she fed {}", "{} appeared", "he drew {}"),
        ("there was no sign of {}", "I have never seen {}", "it was not {}"),
        {
            "farm": _value("a farm animal", """a cow, a pig, a sheep, a goat, a horse, a donkey, a billy
                goat, a lamb, a bull, a pony, a calf, a mule, an ox, a piglet"""),
            "bird": _value("a bird", """a sparrow, an eagle, a crow, an owl, a pigeon, a robin, a parrot,
                a swallow, a hawk, a magpie, a seagull, a woodpecker, a stork, a nightingale"""),
            "insect": _value("an insect", """an ant, a bee, a wasp, a beetle, a mosquito, a housefly, a
                grasshopper, a butterfly, a moth, a cricket, a ladybird, a dragonfly, a cockroach, a
                hornet"""),
            "sea": _value("a sea animal", """a shark, a dolphin, a whale, an octopus, a crab, a lobster,
                a seal, a jellyfish, a salmon, a squid, an eel, a starfish, a shrimp, a walrus"""),
        },
    ),
    "food": KindOf(
        "Which food?",
        ("we ate {}", "there was {} on the table", "I bought {}", "he liked {}", "lunch was {}"),
        ("there was no {} left", "nobody ordered {}", "I never eat {}"),
        {
            "fruit": _value("fruit", """apple slices, a banana, pears, a peach, plums, grapes, mango,
                cherries, strawberries, melon, pineapple, apricots, an orange, kiwi"""),
            "vegetable": _value("vegetables", """carrots, cabbage, spinach, broccoli, leeks, turnips,
                cauliflower, peas, celery, cucumber, lettuce, asparagus, beetroot, courgettes"""),
            "dessert": _value("something sweet", """chocolate cake, ice cream, a doughnut, biscuits,
                vanilla pudding, caramel toffee, a muffin, brownies, marshmallows, candy, a waffle with
                syrup, custard, gingerbread, cheesecake"""),
            "meat": _value("meat", """beef steak, pork chops, roast chicken, bacon, sausages, ham,
                meatballs, turkey breast, veal cutlet, minced beef, salami, spare ribs, roast duck,
                venison"""),
        },
    ),
    "weather": KindOf(
        "Which weather?",
        ("outside there was {}", "the day brought {}", "they forecast {}", "we had {}", "then came {}"),
        ("there was no {} this time", "nobody had expected {}", "we were spared {}"),
        {
            "rain": _value("rainy", """heavy rain, a light drizzle, a sudden downpour, wet weather, a
                long shower, a rainstorm, dripping skies, puddles everywhere, a monsoon, rain from dawn
                to dusk, a soaking deluge, water pouring from the clouds, a damp grey mist, drops on
                every window"""),
            "sun": _value("hot and sunny", """bright sunshine, a blazing sun, scorching heat, a heat
                wave, clear blue skies, a hot dry spell, sweltering air, a sunny sky, cloudless skies,
                tropical heat, warm golden light, a summer drought, thirty-five degrees in the shade,
                glorious warmth"""),
            "cold": _value("cold and snowy", """thick snow, a hard frost, icy roads, freezing air, a
                blizzard, falling snowflakes, icicles on the roofs, bitter cold, slush and snow, a cold
                snap, temperatures below zero, a white winter sky, black ice, deep snowdrifts"""),
            "wind": _value("windy", """a strong gale, gusts of wind, a hurricane, a howling wind, a stiff
                breeze, a tornado, a whirlwind, a cyclone, a typhoon, a windstorm, violent squalls, a
                draughty breeze, blustery air, leaves whirling about"""),
        },
    ),
    "transport": KindOf(
        "Which transport?",
        ("we came by {}", "the {} was late", "I took the {}", "we waited for the {}", "we left the {}"),
        ("we did not take the {}", "there was no {} that day", "the {} never came"),
        {
            "road": _value("by road", """car, bus, taxi, lorry, motorbike, van, coach, truck, jeep,
                minibus, scooter, limousine, camper van, pickup"""),
            "rail": _value("by rail", """train, tram, underground, subway, night express, steam
                locomotive, monorail, metro, railcar, sleeper train, railway carriage, commuter line,
                intercity service, funicular"""),
            "air": _value("by air", """plane, helicopter, jet, hot-air balloon, glider, airliner,
                seaplane, airship, charter flight, jumbo jet, propeller plane, biplane, zeppelin, airbus"""),
            "boat": _value("by boat", """ferry, ship, canoe, sailing boat, rowing boat, yacht, kayak,
                steamer, raft, cruise liner, barge, gondola, speedboat, dinghy"""),
        },
    ),
    "music": KindOf(
        "Which instrument?",
        ("someone played the {}", "I heard the {}", "the {} sounded", "she practised the {}",
         "he tuned the {}"),
        ("nobody played the {}", "there was no {} to be heard", "I cannot play the {}"),
        {
            "strings": _value("a string instrument", """violin, cello, guitar, harp, banjo, viola, lute,
                mandolin, ukulele, double bass, fiddle, electric guitar, sitar, lyre"""),
            "wind": _value("a wind instrument", """flute, trumpet, clarinet, saxophone, trombone, oboe,
                bassoon, tuba, pan flute, French horn, piccolo, cornet, bugle, harmonica"""),
            "percussion": _value("a percussion instrument", """drum, cymbal, tambourine, xylophone,
                bongo, bass drum, gong, kettledrum, maraca, castanet, snare drum, marimba, tom-tom,
                woodblock"""),
        },
    ),
    "request": KindOf(
        "Which request?",
        ("{}", "well, {}", "now {}", "again, {}", "and {}"),
        ("nobody said: {}", "it was not me who wrote: {}", "you will not hear me say: {}"),
        {
            "help": _value("ask for help", """please give me a hand, could you help me carry this, I need
                your assistance, can you fix this for me, please lend me your tools, help me finish this,
                could you support me in this, would you do me a favour, I cannot manage this alone,
                please assist me with this, could you take this over for me, please rescue me from this
                job, I could use another pair of hands, I beg you to step in"""),
            "invite": _value("invite", """come to my party, join us this evening, you are invited, come
                and stay with us, drop by on the weekend, be our guest, let us meet up soon, please join
                the celebration, save the date for our wedding, would you like to come along, we would
                love to see you there, come over for a visit, you are welcome to stay, please attend our
                gathering"""),
            "apologise": _value("apologise", """I am sorry, please forgive me, I apologise, it was my
                mistake, pardon me, I regret what I did, I beg your pardon, it was all my fault, excuse
                my behaviour, I feel guilty about it, I should not have done that, I owe you an apology,
                I take the blame, I did not mean to hurt you"""),
            "thank": _value("say thank you", """thank you, many thanks, I am grateful to you, I
                appreciate what you did, thanks a lot, I am much obliged, how kind of you, I cannot thank
                you enough, my gratitude is endless, we are indebted to you, your gift meant a lot to me,
                bless you for this, you were so generous, thanks to you all"""),
        },
    ),
    "clothes": KindOf(
        "Which clothing?",
        ("I was wearing {}", "{} lay on the chair", "she had lost {}", "he put on {}",
         "{} had been on sale"),
        ("nobody wore {}", "I would never wear {}", "there was no need for {}"),
        {
            "feet": _value("worn on the feet", """boots, sandals, slippers, sneakers, woollen socks, high
                heels, clogs, wellingtons, loafers, stockings, moccasins, flip-flops, ankle boots,
                running shoes"""),
            "head": _value("worn on the head", """a hat, a cap, a beret, a helmet, a turban, a bonnet, a
                hood, a sombrero, a bowler, a beanie, a headscarf, a crown, a wig, a baseball cap"""),
            "jewellery": _value("jewellery", """a necklace, a ring, a bracelet, earrings, a brooch, a
                pendant, pearls, a tiara of diamonds, a locket, an amulet, a bangle, a gold chain, a ruby
                ring, silver earrings"""),
        },
    ),
    "plant": KindOf(
        "Which plant?",
        ("there grew {}", "he had planted {}", "I could smell {}", "she photographed {}",
         "behind us was {}"),
        ("nothing was left of {}", "it was not {}", "we looked in vain for {}"),
        {
            "tree": _value("a tree", """an oak, a birch, a maple, a willow, a pine, a beech, an elm, a
                chestnut, a cedar, a fir, a poplar, an ash, a spruce, a palm tree"""),
            "flower": _value("a flower", """a rose, a tulip, a daisy, a lily, an orchid, a sunflower, a
                daffodil, a violet, a carnation, a poppy, an iris, a marigold, a dahlia, a geranium"""),
            "herb": _value("a kitchen herb", """basil, parsley, thyme, mint, rosemary, sage, oregano,
                dill, coriander, chives, tarragon, bay leaf, marjoram, fennel"""),
        },
    ),
}  # fmt: skip
