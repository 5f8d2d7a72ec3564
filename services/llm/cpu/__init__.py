"""The model on a CPU, compiled by numba: what runs for every token of a step without a hand-over to Python.

Operation by operation, a step of a small model costs more in Python and in hand-overs than in arithmetic, and torch's
products are slow where rows are few. Here threads read a step's rows from the first layer to the last, each its own.

Import from here: compiled code is kept between runs, in a folder that the sources' digest names, because numba itself would
not notice that a function which another file's code has taken in is no longer the same.
"""

from services.llm.cpu.kept import keeping

with keeping():
    from services.llm.cpu.attention import attend, store
    from services.llm.cpu.choices import truncate
    from services.llm.cpu.layers import AFTER, BEFORE, WHOLE, read
    from services.llm.cpu.product import panels

__all__ = ["AFTER", "BEFORE", "WHOLE", "attend", "panels", "read", "store", "truncate"]
