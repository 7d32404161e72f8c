"""Local projection: each Gaussian is drawn where it lies, on a coarse grid, and a fast Fourier transform of the grid gives the image's.

A Gaussian reaches a few grid points only, so the work per Gaussian does not grow with the box, unlike that of a matrix product. This is the
non-uniform fast Fourier transform with Gaussian spreading (Dutt & Rokhlin, SIAM J. Sci. Comput. 14, 1993; Greengard & Lee, SIAM Rev. 46,
2004), whose kernel here is the Gaussian of the model itself. All are drawn wider by a common width when the narrowest would alias, and that
width is divided out of the transform.

The grid spans the image's box and repeats itself like the discrete transform. It runs on CPUs; its adjoint reads the same grid points.
"""
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import float32, types
from numba.extending import intrinsic
from scipy import fft

#: grid points per retained Fourier index (two would be critical for indices -m..m)
SAMPLING = 3.0
#: largest alias at the edge of the retained square, relative to what it is added to
ALIAS = 2e-5
#: Gaussians are cut off beyond so many standard deviations
REACH = 4.5
#: grid points along the edge of the squares in which Gaussians are drawn
TILE = 16
#: most tiles along the edge of such a square: what is wider than a hundred grid points has lost its shape anyway
MOST_TILES = 64
#: grid values that one thread works on before it goes on to the next particles (fits the cache)
CHUNK = 1 << 18

_in_registers: Any = intrinsic
_VECTOR = ir.VectorType(ir.FloatType(), TILE)
#: compiled, free of Python's lock, and NaN stays NaN
_compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})


def _index(value):
    return ir.Constant(ir.IntType(64), value)


def _pointer(context, builder, kind, array, offset):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [offset])


def _load(builder, pointer):
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)


def _repeat(builder, scalar):
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), TILE), [0] * TILE))


@_in_registers
def _draw_tile(typing, flat, offset, stride, along_x, x0, along_y, y0):
    """``flat[offset + i * stride + j] += along_y[y0 + i] * along_x[x0 + j]`` for a tile, in vector registers."""
    def generate(context, builder, signature, arguments):
        flat_, offset_, stride_, x_, x0_, y_, y0_ = arguments
        target = _pointer(context, builder, signature.args[0], flat_, offset_)
        row = _load(builder, _pointer(context, builder, signature.args[3], x_, x0_))
        column = _pointer(context, builder, signature.args[5], y_, y0_)
        factors = [builder.load(builder.gep(column, [_index(i)])) for i in range(TILE)]
        for factor in factors:
            drawn = builder.fmul(_repeat(builder, factor), row, flags=("contract",))
            value = builder.fadd(_load(builder, target), drawn, flags=("contract",))
            builder.store(value, builder.bitcast(target, _VECTOR.as_pointer()), align=4)
            target = builder.gep(target, [stride_])
        return context.get_dummy_value()
    return types.void(flat, types.intp, types.intp, along_x, types.intp, along_y, types.intp), generate


@_in_registers
def _read_tile(typing, flat, offset, stride, along_x, x0, along_y, y0, sums):
    """Sums over a tile of ``flat * along_y * along_x`` times 1, j, i and i^2 + j^2, into ``sums``, in vector registers."""
    def generate(context, builder, signature, arguments):
        flat_, offset_, stride_, x_, x0_, y_, y0_, sums_ = arguments
        fast = dict(flags=("contract", "reassoc"))
        source = _pointer(context, builder, signature.args[0], flat_, offset_)
        column = _pointer(context, builder, signature.args[5], y_, y0_)
        moments = [ir.Constant(_VECTOR, [0.0] * TILE)] * 3
        for i in range(TILE):
            value = builder.fmul(_load(builder, source), _repeat(builder, builder.load(builder.gep(column, [_index(i)]))), **fast)
            for power in range(3):
                weighted = builder.fmul(value, ir.Constant(_VECTOR, [float(i**power)] * TILE), **fast) if power else value
                moments[power] = builder.fadd(moments[power], weighted, **fast)
            source = builder.gep(source, [stride_])
        row = _load(builder, _pointer(context, builder, signature.args[3], x_, x0_))
        zeroth, first, second = (builder.fmul(moment, row, **fast) for moment in moments)
        along = builder.fmul(zeroth, ir.Constant(_VECTOR, [float(j) for j in range(TILE)]), **fast)
        square = builder.fmul(zeroth, ir.Constant(_VECTOR, [float(j * j) for j in range(TILE)]), **fast)
        result = _pointer(context, builder, signature.args[7], sums_, _index(0))
        name = "llvm.vector.reduce.fadd.v%df32" % TILE
        total = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VECTOR]), name)
        for k, vector in enumerate((zeroth, along, first, builder.fadd(square, second, **fast))):
            value = builder.call(total, [ir.Constant(ir.FloatType(), 0.0), vector], fastmath=("reassoc",))
            builder.store(value, builder.gep(result, [_index(k)]))
        return context.get_dummy_value()
    return types.void(flat, types.intp, types.intp, along_x, types.intp, along_y, types.intp, sums), generate


@_compiled
def _exponential(x):
    """e^x of a float32 within +-0.35, to float32's precision: Taylor's polynomial."""
    value = float32(1 / 720)
    for divisor in (120, 24, 6, 2, 1, 1):
        value = value * x + float32(1 / divisor)
    return value


@_compiled
def _profile(values, half, inside, c, height):
    """``height exp(-c (j - half + 1 - inside)^2)`` for j = 0 .. 2 half - 1, by recurrence outwards from the middle.

    c is below 0.35, `inside` in [0, 1).
    """
    middle, step = height * _exponential(-c * inside * inside), _exponential(-c)
    ratio, narrowing = _exponential(c * (float32(2) * inside - float32(1))), step * step
    right, left, to_right, to_left = middle, middle, ratio, narrowing / ratio
    values[half - 1] = middle
    for j in range(half):
        right *= to_right
        values[half + j] = right
        to_right *= narrowing
        if j < half - 1:
            left *= to_left
            values[half - 2 - j] = left
            to_left *= narrowing


@_compiled
def _cell(position, size):
    """Grid point at or below a position on a periodic grid, and the rest in [0, 1)."""
    whole = np.floor(position)
    turn = np.floor(whole / float32(size))
    return min(max(int(whole - turn * float32(size)), 0), size - 1), float32(position - whole)


@_compiled
def _wrap(columns, first, count, size):
    """``(first + j) % size`` for j below `count`, into columns."""
    column = first % size
    for j in range(count):
        columns[j] = column
        column = column + 1 if column + 1 < size else 0


@_compiled
def _outline(along_x, along_y, position, c, height, half, size):
    """Profiles of one Gaussian in the square of 2 half points that it is drawn in.

    Returns the square's first column and row, the Gaussian's distance past the grid point below it along x and y, and whether the square
    lies within the grid.
    """
    column, inside_x = _cell(position[0], size)
    row, inside_y = _cell(position[1], size)
    _profile(along_x, half, inside_x, c, float32(1))
    _profile(along_y, half, inside_y, c, height)
    left, top = column - half + 1, row - half + 1
    return left, top, inside_x, inside_y, left >= 0 and top >= 0 and left + 2 * half <= size and top + 2 * half <= size


@_compiled
def _draw(grids, xy, heights, c, tiles):
    """Add Gaussians to periodic grids.

    grids [C, M, M]; xy [C, N, 2] in grid points; heights [1 or C, N]; c [1 or C, N], 1 / (2 sigma^2); tiles, as c: edge of the square that
    is drawn, in tiles.
    """
    size, most = grids.shape[1], TILE * tiles.max()
    along_x, along_y, columns = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.int64)
    for b in range(grids.shape[0]):
        flat, own, height = grids[b].reshape(-1), b % c.shape[0], b % heights.shape[0]
        for n in range(xy.shape[1]):
            blocks = tiles[own, n]
            half = blocks * (TILE // 2)
            left, top, _, _, whole = _outline(along_x, along_y, xy[b, n], c[own, n], heights[height, n], half, size)
            if whole:
                for i in range(blocks):
                    for j in range(blocks):
                        _draw_tile(flat, (top + TILE * i) * size + left + TILE * j, size, along_x, TILE * j, along_y, TILE * i)
            else:
                _wrap(columns, left, 2 * half, size)
                y = top % size
                for i in range(2 * half):
                    for j in range(2 * half):
                        flat[y * size + columns[j]] += along_y[i] * along_x[j]
                    y = y + 1 if y + 1 < size else 0


@_compiled
def _read(grids, xy, c, tiles, out):
    """The adjoint of `_draw`: for each Gaussian K, sums over the grid of g K times 1, dx, dy and dx^2 + dy^2, into out [C, N, 4]."""
    size, most = grids.shape[1], TILE * tiles.max()
    along_x, along_y, columns = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.int64)
    sums, edge = np.empty(4, np.float32), np.empty(TILE * TILE, np.float32)
    for b in range(grids.shape[0]):
        flat, own = grids[b].reshape(-1), b % c.shape[0]
        for n in range(xy.shape[1]):
            blocks = tiles[own, n]
            half = blocks * (TILE // 2)
            left, top, inside_x, inside_y, whole = _outline(along_x, along_y, xy[b, n], c[own, n], float32(1), half, size)
            if not whole:
                _wrap(columns, left, 2 * half, size)
            zeroth = first_x = first_y = second = float32(0)
            for i in range(blocks):
                for j in range(blocks):
                    if whole:
                        corner = (top + TILE * i) * size + left + TILE * j
                        _read_tile(flat, corner, size, along_x, TILE * j, along_y, TILE * i, sums)
                    else:
                        for k in range(TILE):
                            start = (top + TILE * i + k) % size * size
                            for l in range(TILE):
                                edge[TILE * k + l] = flat[start + columns[TILE * j + l]]
                        _read_tile(edge, 0, TILE, along_x, TILE * j, along_y, TILE * i, sums)
                    # moments about the Gaussian's centre from those about the tile's corner
                    x, y = float32(TILE * j - half + 1) - inside_x, float32(TILE * i - half + 1) - inside_y
                    zeroth += sums[0]
                    first_x += sums[1] + x * sums[0]
                    first_y += sums[2] + y * sums[0]
                    second += sums[3] + float32(2) * (x * sums[1] + y * sums[2]) + (x * x + y * y) * sums[0]
            out[b, n, 0], out[b, n, 1], out[b, n, 2], out[b, n, 3] = zeroth, first_x, first_y, second


class LocalProjector:
    """Transforms of projections on a FourierGrid and their adjoint, with NumPy arrays.

    Parameters
    ----------
    grid : FourierGrid.
    threads : int.
    """

    def __init__(self, grid, threads):
        self.grid, self.threads = grid, threads
        self.size = 2 * fft.next_fast_len(int(np.ceil(0.5 * SAMPLING * (grid.m + 0.5))), real=True)
        self.spacing_angst = grid.box * grid.pixel_size / self.size
        # exp(-2 pi^2 sigma^2 (1 - 2 m / M)): what index M - m leaves at m, over what m holds
        self.least_variance = np.log(1 / ALIAS) / (2 * np.pi**2 * (1 - 2 * grid.m / self.size))
        self._pool = ThreadPoolExecutor(threads, "projector") if threads > 1 else None

    def project(self, xy, amplitudes, widths):
        """Transforms [B, 2, 2m+1, m+1] of mixtures: xy [B, N, 2] Å, amplitudes [N] or [B, N], widths [N] or [B, N] Å; all float32."""
        xy, shape = self._on_grid(xy), self._shape(widths)
        heights = np.atleast_2d(amplitudes) * (shape.c / np.float32(np.pi))
        out = np.empty((len(xy), 2) + self.grid.shape, np.float32)
        m = self.grid.m

        def work(part):
            drawn = np.zeros((len(xy[part]), self.size, self.size), np.float32)
            _draw(drawn, xy[part], _rows(heights, part), _rows(shape.c, part), _rows(shape.tiles, part))
            rows = fft.fft(fft.rfft(drawn, axis=2)[:, :, :m + 1], axis=1, overwrite_x=True)
            for target, source in ((out[part, :, :m], rows[:, -m:]), (out[part, :, m:], rows[:, :m + 1])):
                target[:, 0], target[:, 1] = source.real, source.imag
            out[part] *= shape.factor
        self._share(work, len(xy))
        return out

    def adjoint(self, upstream, xy, amplitudes, widths):
        """Gradients of ``sum(upstream * project(...))``: to xy [B, N, 2], amplitudes [B, N], widths [B, N]."""
        xy, shape, m = self._on_grid(xy), self._shape(widths), self.grid.m
        sums = np.empty(xy.shape[:2] + (4,), np.float32)
        # the real inverse transform counts indices kx > 0 twice
        factor = shape.factor * np.where(np.arange(m + 1) == 0, self.size**2, 0.5 * self.size**2).astype(np.float32)

        def work(part):
            rows = np.zeros((len(xy[part]), self.size, m + 1), np.complex64)
            for target, source in ((rows[:, -m:], upstream[part, :, :m]), (rows[:, :m + 1], upstream[part, :, m:])):
                target.real, target.imag = source[:, 0], source[:, 1]
            rows[:, -m:] *= factor[:m]
            rows[:, :m + 1] *= factor[m:]
            drawn = fft.irfft(fft.ifft(rows, axis=1, overwrite_x=True), self.size, axis=2)
            _read(drawn, xy[part], _rows(shape.c, part), _rows(shape.tiles, part), sums[part])
        self._share(work, len(xy))
        c, amplitudes = shape.c, np.atleast_2d(amplitudes)
        sums *= (c / np.float32(np.pi))[..., None]
        to_xy = sums[..., 1:3] * (amplitudes * c * np.float32(2 / self.spacing_angst))[..., None]
        # dK/dsigma = K (r^2 / sigma^3 - 2 / sigma), and sigma dsigma = s ds / h^2
        to_widths = amplitudes * (4 * c * c * sums[..., 3] - 4 * c * sums[..., 0])
        return to_xy, sums[..., 0], to_widths * (np.atleast_2d(widths) / np.float32(self.spacing_angst**2))

    def _on_grid(self, xy):
        """Positions in grid points; the molecule's origin lies in the middle, so that few Gaussians cross the edge."""
        return np.asarray(xy, np.float32) * np.float32(1 / self.spacing_angst) + np.float32(self.size // 2)

    def _shape(self, widths):
        return _Shape(np.atleast_2d(widths).astype(np.float64) / self.spacing_angst, self)

    def _share(self, work, count):
        """Call `work` with slices of the batch, on all threads."""
        most = max(1, CHUNK // self.size**2)
        each = min(most, -(-count // self.threads))
        parts = [slice(i, min(i + each, count)) for i in range(0, count, each)]
        for _ in (self._pool.map if self._pool else map)(work, parts):
            pass


class _Shape:
    """How Gaussians of widths [1 or B, N] (grid points) are drawn: c = 1 / (2 sigma^2), tiles along the edge, and the factor
    [2m+1, m+1] that takes the common widening out of the transform and scales it."""

    def __init__(self, widths, projector):
        grid, size = projector.grid, projector.size
        widening = max(0.0, projector.least_variance - float(widths.min() ** 2))
        variance = widths**2 + widening
        self.c = (0.5 / variance).astype(np.float32)
        # NaN goes through to the image, by c
        self.tiles = np.clip(np.nan_to_num(np.ceil(REACH * np.sqrt(variance) / (TILE // 2)), nan=1), 1, MOST_TILES).astype(np.int64)
        index = np.arange(-grid.m, grid.m + 1)
        # a shift by half the grid turns the sign of odd indices
        narrowing = np.exp(2 * np.pi**2 * widening * (index / size) ** 2) * np.where(index % 2, -1, 1)
        scale = 1.0 / (grid.pixel_size**2 * grid.box)
        self.factor = (scale * narrowing[:, None] * narrowing[None, grid.m:]).astype(np.float32)


def _rows(array, part):
    """A slice of the batch of [B, N], or [1, N] as it is."""
    return array if len(array) == 1 else array[part]
