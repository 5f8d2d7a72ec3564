"""Small matrix products for code compiled by numba: a tile of the result stays in registers while its inputs stream by.

numba knows no vector registers, and its `np.dot` calls a BLAS that starts threads of its own; so the tile is written as LLVM
instructions on vectors of 16 numbers, which LLVM fits to every processor's width.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

LANES = 16
"""Numbers in a vector, and columns of a panel."""

_I64 = ir.IntType(64)
_FUSED = ("contract",)


def _tile(rows: int, vectors: int, unroll: int) -> Any:
    """An intrinsic that computes `rows` x `vectors · 16` numbers of x @ b.

    The intrinsic takes (x, x_at, x_step, b, b_at, b_step, b_next, out, out_at, out_step, depth, add): flat arrays, where in
    them the tile begins, and how far apart rows are; `b_next` and 16 lead from one vector to the next in b and in out;
    `add` is 0 or 1, what of `out` is kept. b may be bfloat16 as uint16. `unroll` sums run side by side over the depth.
    """

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typingctx, x, x_at, x_step, b, b_at, b_step, b_next, out, out_at, out_step, depth, add
    ):
        signature = types.void(x, *[types.int64] * 2, b, *[types.int64] * 3, out, *[types.int64] * 4)
        narrow = b.dtype == types.uint16

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = context.get_data_type(x.dtype)
            stored = context.get_data_type(b.dtype)
            vector = ir.VectorType(number, LANES)
            size = 8 if isinstance(number, ir.DoubleType) else 4
            data = [
                context.make_array(kind)(context, builder, value).data
                for kind, value in ((x, args[0]), (b, args[3]), (out, args[7]))
            ]
            x_at, x_step, b_at, b_step, b_next = args[1], args[2], args[4], args[5], args[6]
            out_at, out_step, depth, add = args[8:12]

            def at(base: Any, *terms: Any) -> Any:
                place = terms[0]
                for term in terms[1:]:
                    place = builder.add(place, term)
                return builder.gep(base, [place])

            def times(value: Any, count: int) -> Any:
                return builder.mul(value, ir.Constant(_I64, count))

            def load(pointer: Any) -> Any:
                if not narrow:
                    whole = builder.bitcast(pointer, vector.as_pointer())
                    return builder.load(whole, align=size)
                halves = builder.bitcast(pointer, ir.VectorType(stored, LANES).as_pointer())
                wide = ir.VectorType(ir.IntType(32), LANES)
                bits = builder.zext(builder.load(halves, align=2), wide)
                shift = ir.Constant(wide, [16] * LANES)
                return builder.bitcast(builder.shl(bits, shift), vector)

            def spread(value: Any) -> Any:
                one = builder.insert_element(
                    ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
                )
                mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
                return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

            def advance(sums: list[Any], k: Any) -> list[Any]:
                """One step of the depth for one set of sums."""
                along = builder.mul(k, b_step)
                bs = [load(at(data[1], b_at, along, times(b_next, j))) for j in range(vectors)]
                new = []
                for i in range(rows):
                    a = spread(builder.load(at(data[0], x_at, times(x_step, i), k)))
                    for j in range(vectors):
                        product = builder.fmul(a, bs[j], flags=_FUSED)
                        new.append(builder.fadd(sums[i * vectors + j], product, flags=_FUSED))
                return new

            def loop(start: Any, end: Any, sets: list[list[Any]]) -> list[list[Any]]:
                """Advance all sets together from `start` to `end`, one step of the depth for each."""
                before = builder.block
                head, body, after = (builder.append_basic_block(n) for n in ("head", "body", "after"))
                builder.branch(head)
                builder.position_at_end(head)
                k = builder.phi(_I64)
                k.add_incoming(start, before)
                phis = [[builder.phi(vector) for _ in one] for one in sets]
                for one, old in zip(phis, sets, strict=True):
                    for phi, value in zip(one, old, strict=True):
                        phi.add_incoming(value, before)
                builder.cbranch(builder.icmp_signed("<", k, end), body, after)
                builder.position_at_end(body)
                moved = [advance(one, builder.add(k, ir.Constant(_I64, u))) for u, one in enumerate(phis)]
                k.add_incoming(builder.add(k, ir.Constant(_I64, len(sets))), builder.block)
                for one, new in zip(phis, moved, strict=True):
                    for phi, value in zip(one, new, strict=True):
                        phi.add_incoming(value, builder.block)
                builder.branch(head)
                builder.position_at_end(after)
                return phis

            zero = ir.Constant(vector, [0.0] * LANES)
            sets = [[zero] * (rows * vectors) for _ in range(unroll)]
            start = ir.Constant(_I64, 0)
            if unroll > 1:
                whole = builder.sub(depth, builder.srem(depth, ir.Constant(_I64, unroll)))
                sets = loop(start, whole, sets)
                start = whole
            sums = loop(start, depth, sets[:1])[0]
            for other in sets[1:]:
                sums = [builder.fadd(a, b, flags=_FUSED) for a, b in zip(sums, other, strict=True)]
            keep = builder.icmp_signed("!=", add, ir.Constant(_I64, 0))
            for i in range(rows):
                for j in range(vectors):
                    place = at(data[2], out_at, times(out_step, i), ir.Constant(_I64, LANES * j))
                    place = builder.bitcast(place, vector.as_pointer())
                    value = sums[i * vectors + j]
                    with builder.if_else(keep) as (then, otherwise):
                        with then:
                            total = builder.fadd(value, builder.load(place, align=size), flags=_FUSED)
                            builder.store(total, place, align=size)
                        with otherwise:
                            builder.store(value, place, align=size)
            return context.get_dummy_value()

        return signature, code

    return tile


# numba keeps nothing of functions that close over intrinsics: they have names of their own.
tile_1x1 = _tile(1, 1, 4)
tile_1x2, tile_2x2, tile_4x2 = _tile(1, 2, 2), _tile(2, 2, 1), _tile(4, 2, 1)
