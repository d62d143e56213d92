"""A part of the real stamps, in their form with a table."""

import csv
from collections import Counter


def write_some_stamps(source, folder, per_category=40, categories=("animals", "symbols")):
    """Links to the first stamps of some categories; gives the folder."""
    folder.mkdir()
    for name in ("images", "speech_fr"):
        (folder / name).symlink_to(source / name)
    with (source / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows, counts = list(csv.DictReader(file)), Counter()
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            counts[row["category"]] += 1
            if row["category"] in categories and counts[row["category"]] <= per_category:
                writer.writerow(row)
    return folder
