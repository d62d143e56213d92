"""Small folders in the layouts of the corpora, for tests of the loaders and of the recipes."""

import csv

import numpy as np
import soundfile
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_colearn.corpora.dtmf import dtmf_digits
from hf_colearn.corpora.emoji import DRAWINGS


# ---- spoken digits ----
def write_dtmf_digits(folder, clips_per_digit=120, seed=0, sampling_rate=8000):
    """DTMF digits as files in FSDD's layout; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, samples in dtmf_digits(clips_per_digit, seed, sampling_rate):
        paths.append(folder / name)
        soundfile.write(paths[-1], samples, sampling_rate)
    return paths


# ---- stamps ----
ANIMALS = [("A frog.", "Une grenouille.")] * 2 + [(f"Animal {i}.", f"Un animal {i}.") for i in range(10)]
# "A drake" and "A duck" share their French, "a duck" and "A duck" their English but for case: one thing.
BIRDS = [("A drake.", "Un canard."), ("A duck.", "Un canard."), ("a duck.", "Une cane.")]
FOOD = [(f"Food {i}.", f"Un plat {i}.") for i in range(15)]
PEOPLE = [("A fireman.", "Un pompier.")] * 2
STAMPS = [(category, *text) for category, texts in
          (("animals", ANIMALS + BIRDS), ("food", FOOD), ("people", PEOPLE)) for text in texts]  # fmt: skip


def write_audio(path, number):
    wave = 0.5 * np.sin(2 * np.pi * (200 + 10 * number) * np.arange(1600) / 16000)
    soundfile.write(path, wave, 16000)


def write_table(folder, stamps=STAMPS):
    (folder / "images").mkdir(parents=True)
    (folder / "speech_fr").mkdir()
    rows = []
    for number, (category, text_en, text_fr) in enumerate(stamps):
        name = f"{number:04d}"
        Image.new("RGB", (128, 128), (number, 0, 0)).save(folder / "images" / f"{name}.jpg", quality=100)
        write_audio(folder / "speech_fr" / f"{name}.ogg", number)
        rows.append({"id": name, "category": category, "text_en": text_en, "text_fr": text_fr})
    write_rows(folder, rows)
    return folder


def write_rows(folder, rows):
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_tree(folder, stamps=STAMPS):
    """Debian's layout: transparent pictures, texts in many languages, some without a recording."""
    for number, (category, text_en, text_fr) in enumerate(stamps):
        of_category = folder / category / "cartoon"
        of_category.mkdir(parents=True, exist_ok=True)
        path = of_category / f"{number:04d}.png"
        Image.new("RGBA", (200, 100), (number, 0, 0, 255)).save(path)
        lines = [text_en, "de.utf8=Etwas.", "fr_CA.utf8=Autre chose.", f"fr.utf8={text_fr}"]
        path.with_suffix(".txt").write_text("\n".join(lines), encoding="utf-8")
        write_audio(path.with_name(f"{number:04d}_desc_fr.ogg"), number)
    Image.new("RGBA", (9, 9)).save(folder / "food" / "unspoken.png")
    (folder / "food" / "unspoken.txt").write_text("Unspoken.\nfr.utf8=Non dit.", encoding="utf-8")
    Image.new("RGBA", (9, 9)).save(folder / "animals" / "mirror_mirror.png")
    return folder


# ---- tweets ----
IDS = ["840006160660983809", "854334602516733952", "813839301658697728", "915657464401580032", "826526550937960449"]


def write_images(folder, ids=IDS):
    (folder / "dataset_image").mkdir(parents=True)
    for i, name in enumerate(ids):
        Image.new("RGB", (20 + i, 10), (40 * i, 0, 0)).save(folder / "dataset_image" / f"{name}.jpg", quality=100)
    return folder


def write_mirror(folder, splits, labels):
    picture = write_images(folder / "pictures") / "dataset_image" / f"{IDS[0]}.jpg"
    features = Features(image=ImageFeature(), text=Value("string"), label=labels, id=Value("string"))
    for split in splits:
        cells = {"image": [str(picture)] * 2, "text": [f"{split} 0", f"{split} 1"], "label": [0, 1], "id": ["a", "b"]}
        (folder / "mirror").mkdir(exist_ok=True)
        Dataset.from_dict(cells, features=features).to_parquet(folder / "mirror" / f"{split}.parquet")
    return str(folder / "mirror")


# ---- emoji ----
# Four animals, four foods, and what is left out: a keycap, a skin tone, a joined one, a flag, a component.
EMOJI = {"animal": ["1f431", "1f436", "1f434", "1f42e"], "food": ["1f34e", "1f350", "2615-fe0f", "1f35e"]}
EMOJI_LEFT_OUT = {
    "0031-fe0f-20e3": "Symbols",
    "1f44b-1f3fd": "People",
    "1f468-200d-1f373": "People",
    "1f1eb-1f1f7": "Flags",
    "1f3c1": "Flags",
    "1f9b0": "Component",
}
EMOJI_COLOURS = {"noto": (200, 0, 0, 255), "twemoji": (0, 0, 200, 255)}


def write_emoji(folder, kept=EMOJI):
    """Pictures of 8 x 8 pixels in two drawings, of one colour and transparent below but for a pixel in the last row."""
    named = [(code, category, f"{category} {i}") for category, codes in kept.items() for i, code in enumerate(codes)]
    rows = [*named, *((code, category, "left out") for code, category in EMOJI_LEFT_OUT.items())]
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label_text", "tags", "category", "subgroup"])
        writer.writerows([f"{code}.png", name, "", category, f"{category}-small"] for code, category, name in rows)
    for drawing in DRAWINGS:
        (folder / drawing).mkdir()
        for row, (code, *_) in enumerate(rows):
            picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
            picture.paste(EMOJI_COLOURS[drawing], (0, 0, 8, 4))
            picture.putpixel((row % 8, 7), (0, 0, row, 255))
            picture.save(folder / drawing / f"{code}.png")
    return folder
