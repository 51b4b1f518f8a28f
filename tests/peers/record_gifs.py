"""Writes tests/signal/gif_cases.inc: small GIFs and what Pillow 13.0 shows of each frame, on white.

    python tests/peers/record_gifs.py FILE [CASES]

The GIFs are made here from random numbers: disposals, transparent numbers, palettes of a frame, interlaced rows, frames smaller
than the screen. Needs pillow.
"""

import io
import random
import struct
import sys

from PIL import Image

BITS = 3  # of a number


def compressed(numbers):
    """LZW with the table cleared before codes grow, in blocks of 255 bytes."""
    clear, width, held, count = 1 << BITS, BITS + 1, 0, 0
    codes = []
    for i, number in enumerate(numbers):
        codes += [clear] if i % (clear - 2) == 0 else []
        codes.append(number)
    out = bytearray()
    for code in codes + [clear + 1]:
        held |= code << count
        count += width
        while count >= 8:
            out.append(held & 255)
            held >>= 8
            count -= 8
    out.append(held & 255)
    blocks = [out[i:i + 255] for i in range(0, len(out), 255)]
    return bytes([BITS]) + b"".join(bytes([len(b)]) + bytes(b) for b in blocks) + b"\0"


def in_four_steps(numbers, width, height):
    order = [row for first, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for row in range(first, height, step)]
    return [number for row in order for number in numbers[row * width:(row + 1) * width]]


def gif(draw):
    width, height = draw.randint(3, 7), draw.randint(3, 7)
    palette = lambda: bytes(draw.randrange(256) for _ in range(3 << BITS))
    common = palette() if draw.random() < 0.8 else None
    out = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 | BITS - 1 if common else 0, draw.randrange(1 << BITS), 0) + (common or b"")
    for i in range(draw.randint(2, 5)):
        x, y = draw.randrange(width), draw.randrange(height)
        w, h = draw.randint(1, width - x), draw.randint(1, height - y)
        if i == 0 and draw.random() < 0.5:
            x, y, w, h = 0, 0, width, height
        numbers = [draw.randrange(1 << BITS) for _ in range(w * h)]
        if draw.random() < 0.9:
            transparent = draw.choice([None, draw.randrange(1 << BITS)])
            flags = draw.choice([0, 1, 2, 2, 3, 3]) << 2 | (transparent is not None)
            out += b"\x21\xf9\x04" + struct.pack("<BHB", flags, draw.choice([4, 10]), transparent or 0) + b"\0"
        own, interlaced = not common or draw.random() < 0.3, draw.random() < 0.3
        out += b"," + struct.pack("<HHHHB", x, y, w, h, (0x80 | BITS - 1 if own else 0) | (0x40 if interlaced else 0))
        out += (palette() if own else b"") + compressed(in_four_steps(numbers, w, h) if interlaced else numbers)
    return out + b";"


def shown(data):
    picture, out = Image.open(io.BytesIO(data)), b""
    for i in range(picture.n_frames):
        picture.seek(i)
        frame = picture.convert("RGBA")
        white = Image.new("RGBA", frame.size, (255, 255, 255, 255))
        white.alpha_composite(frame)
        out += white.convert("RGB").tobytes()
    return out


def quoted(data):
    text = data.hex()
    return "\n".join(f'     "{text[i:i + 88]}"' for i in range(0, len(text), 88))


path, cases = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 12
with open(path, "w") as f:
    f.write("// Written by tests/peers/record_gifs.py: a GIF, and what Pillow shows of its frames.\n")
    for seed in range(cases):
        data = gif(random.Random(seed))
        f.write(f"    {{\n{quoted(data)},\n{quoted(shown(data))}}},\n")
