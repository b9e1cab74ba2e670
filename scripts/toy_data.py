"""Make datasets/toy.csv: 60 invented people, 40 invented films, about 900 events. `--check` only compares.

Each person has a first and a second taste out of four; each film belongs to one taste and is more or less popular.
A person watches films without repeating one, with a chance that is taste x popularity. So popularity alone is a fair
guess, and knowing a person's taste is a better one.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import random
import sys
from pathlib import Path

FILE = Path(__file__).parent.parent / "datasets" / "toy.csv"
SEED, PEOPLE = 7, 60
TASTE_FIRST, TASTE_SECOND, TASTE_OTHER = 1.0, 0.3, 0.06
POPULARITY_SLOPE = 0.7
START, DAY = 1_704_067_200, 86_400  # 2024-01-01, UTC

FILMS = {
    "Space": [
        "The Long Way to Ceres",
        "Salt on the Airlock",
        "Orbit of Two Sisters",
        "Nobody Waters the Moon",
        "A Lighthouse for Titan",
        "The Clockwork Comet",
        "Thirteen Quiet Satellites",
        "Gravity Is a Rumour",
        "The Cartographer of Rings",
        "Last Tram to Perihelion",
    ],
    "Kitchen comedy": [
        "Seven Spoons for Aunt Odile",
        "The Onion Inspector",
        "Bread Rises at Noon",
        "Two Chefs and a Goose",
        "Who Salted the Mayor?",
        "The Unhurried Dumpling",
        "Marmalade by Moonlight",
        "A Fork in the Family",
        "Burnt Toast, Warm Hearts",
        "The Pickle Accord",
    ],
    "Mystery": [
        "The Umbrella That Stayed",
        "Fog over Pier Nineteen",
        "A Key for No Door",
        "The Silent Stationmaster",
        "Murder in the Index",
        "Ink on the Third Stair",
        "The Borrowed Alibi",
        "Nine Clues for Miss Arden",
        "The Librarian's Second Shadow",
        "What the Parrot Withheld",
    ],
    "Nature": [
        "The Patience of Moss",
        "River Without a Hurry",
        "A Year of Herons",
        "Where the Bears Nap",
        "The Smallest Glacier",
        "Songs under the Ice",
        "Bees of the Upper Valley",
        "The Owl Census",
        "Tide Table",
        "One Oak, Four Winters",
    ],
}
SECOND_CATEGORY = ("Family", "Drama", "Adventure")


def films() -> list[dict[str, str]]:
    """Id, title, and categories of each film; the ids go round the tastes, the popular films first."""
    tastes = list(FILMS)
    rows = []
    for place in range(10):
        for taste in tastes:
            number = len(rows) + 1
            second = SECOND_CATEGORY[(place + tastes.index(taste)) % len(SECOND_CATEGORY)]
            rows.append({"item": f"f{number:02}", "title": FILMS[taste][place], "categories": f"{taste}|{second}"})
    return rows


def chance(film: int, first: int, second: int) -> float:
    """How likely a person with these tastes is to choose this film."""
    taste = {second: TASTE_SECOND, first: TASTE_FIRST}.get(film % 4, TASTE_OTHER)
    return taste / (1 + film // 4) ** POPULARITY_SLOPE


def events(draw: random.Random) -> list[dict[str, object]]:
    """All rows, in the order of time."""
    catalogue, rows = films(), []
    for person in range(PEOPLE):
        first, second = person % 4, (person % 4 + 1 + draw.randrange(3)) % 4
        # The largest of log(chance) + Gumbel noise are a draw without repeating.
        keys = [math.log(chance(film, first, second)) - math.log(-math.log(draw.random())) for film in range(40)]
        order = sorted(range(40), key=lambda film: -keys[film])[: draw.randint(10, 20)]
        time = START + draw.randrange(300 * DAY)
        for film in order:
            rows.append({"user": f"p{person + 1:02}", **catalogue[film], "time": time})
            time += draw.randrange(DAY // 2, 5 * DAY)
    return sorted(rows, key=lambda row: (row["time"], row["user"]))


def text() -> str:
    """The whole file."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["user", "item", "title", "categories", "time"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(events(random.Random(SEED)))
    return buffer.getvalue()


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if the file would change")
    if parser.parse_args().check:
        return int(FILE.read_text(encoding="utf-8") != text())
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
