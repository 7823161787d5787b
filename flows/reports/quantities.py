"""Quantities in a form for people to read."""


def count(number: int, what: str) -> str:
    """A number of things: '1 unit', '12 units'."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def memory(kibibytes: float) -> str:
    """An amount given in KiB, in the unit that suits: '1.2 GB'. As in SLURM, 1 GB is 1024 MB."""
    amount, unit = float(kibibytes), "KB"
    for larger in ("MB", "GB", "TB"):
        if amount < 1000:  # '0.98 GB' is shorter than '1003 MB'
            break
        amount, unit = amount / 1024, larger
    digits = 0 if amount >= 9.95 else 1
    return f"{round(amount, digits):g} {unit}"


def duration(seconds: float) -> str:
    """A duration in its two largest units: '3.2 s', '3 min 5 s', '2 h 10 min', '3 d 4 h'."""
    seconds = max(seconds, 0.0)  # the clocks of two hosts may differ
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    whole, parts = round(seconds), list[tuple[int, str]]()
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        amount, whole = divmod(whole, size)
        parts.append((amount, unit))
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2] if amount)
