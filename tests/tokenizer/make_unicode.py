"""Writes unicode.txt beside this file: what Python's unicodedata says of characters whose category is the
same in Unicode 3.2 and in Python's own version, and so in all between (normal forms of assigned
characters never change). Lines: "range FIRST LAST CATEGORY", "form TEXT NFC NFD NFKC NFKD" in
hexadecimal UTF-8.

    python3 tests/tokenizer/make_unicode.py
"""

import pathlib
import random
import unicodedata

OLD = unicodedata.ucd_3_2_0
STABLE = [
    c
    for c in range(0x110000)
    if not 0xD800 <= c < 0xE000
    and unicodedata.category(chr(c)) == OLD.category(chr(c))
    and OLD.category(chr(c)) not in ("Cn", "Co")
]


def ranges():
    out = []
    for c in STABLE:
        category = unicodedata.category(chr(c))
        if out and out[-1][1] == c - 1 and out[-1][2] == category:
            out[-1][1] = c
        else:
            out.append([c, c, category])
    return out


def texts(count):
    """Random runs of letters that decompose, marks and Hangul: where orders and joins matter."""
    draw = random.Random(7)
    marks = [c for c in STABLE if unicodedata.combining(chr(c))]
    folded = [c for c in STABLE if unicodedata.normalize("NFKD", chr(c)) != chr(c)]
    jamo = list(range(0x1100, 0x1113)) + list(range(0x1161, 0x1176)) + list(range(0x11A8, 0x11C3))
    for _ in range(count):
        pools = [marks, marks, folded, jamo, STABLE, range(0x41, 0x5B)]
        yield "".join(chr(draw.choice(draw.choice(pools))) for _ in range(draw.randint(1, 7)))


def main():
    lines = [f"range {a:X} {b:X} {category}" for a, b, category in ranges()]
    for text in texts(600):
        forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
        lines.append(" ".join(["form", *(t.encode().hex() for t in [text, *forms])]))
    pathlib.Path(__file__).with_name("unicode.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
