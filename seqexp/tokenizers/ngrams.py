"""Character n-grams of words and their hash, as in fastText (Bojanowski et al. 2017)."""


def ngrams(word: str, min_n: int, max_n: int) -> list[str]:
    """Return the n-grams of ``<word>`` of `min_n` to `max_n` characters.

    The first or last sign alone is none, as in Facebook's code.
    """
    marked = f"<{word}>"
    last = len(marked) - 1
    return [
        marked[i : i + n]
        for i in range(len(marked))
        for n in range(min_n, min(max_n, len(marked) - i) + 1)
        if n > 1 or 0 < i < last
    ]


def fnv1a(text: str) -> int:
    """Return Facebook's hash of a text: FNV-1a of 32 bits, over bytes of UTF-8 with a sign."""
    found = 2166136261
    for byte in text.encode("utf-8", "surrogatepass"):
        found = ((found ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return found
