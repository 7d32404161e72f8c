"""Local projection: each Gaussian is drawn where it lies, on a coarse grid, and the fast Fourier transform of
the grid is the transform of the image.

A Gaussian covers a few grid points only, so the work per Gaussian does not grow with the box, unlike that of
a matrix product. This is the non-uniform fast Fourier transform with Gaussian spreading (Dutt & Rokhlin, SIAM
J. Sci. Comput. 14, 1993; Greengard & Lee, SIAM Rev. 46, 2004), whose kernel here is the Gaussian of the model
itself. All are drawn wider by a common width when the narrowest would alias, and that width is divided out of
the transform.

The grid spans the image's box and repeats itself like the discrete transform. It runs on CPUs; its adjoint
reads the same grid points.
"""
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional, Tuple, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import float32, types
from numba.extending import intrinsic
from scipy import fft

from gmmhet.engine.imaging.fourier import FourierGrid

#: grid points per retained Fourier index (two would be critical for indices -m..m)
POINTS_PER_INDEX = 3.0
#: largest alias at the edge of the retained square, relative to what it is added to
LARGEST_ALIAS = 2e-5
#: Gaussians are cut off beyond so many standard deviations
CUTOFF_SIGMAS = 4.5
#: grid points along the edge of the squares in which Gaussians are drawn
TILE = 16
#: most tiles along the edge of such a square: Gaussians wider than a hundred grid points lose their shape
MOST_TILES = 64
#: grid values that one thread works on before it goes on to the next particles (fits the cache)
CHUNK_VALUES = 1 << 18

_VECTOR = ir.VectorType(ir.FloatType(), TILE)
#: code that the compiler writes into the kernels that call it
_in_registers: Any = intrinsic
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _compiled(kernel: Kernel) -> Kernel:
    """The kernel in machine code, free of Python's lock; NaN stays NaN."""
    fast = {"contract", "reassoc", "nsz", "arcp"}
    return cast(Kernel, numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=fast)(kernel))


def _index(value: int) -> Any:
    """A constant index."""
    return ir.Constant(ir.IntType(64), value)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """Address of a value of an array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [offset])


def _load(builder: Any, pointer: Any) -> Any:
    """TILE values from an address on, as one vector."""
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)


def _repeat(builder: Any, scalar: Any) -> Any:
    """A vector that holds a number TILE times."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined,
                                  ir.Constant(ir.VectorType(ir.IntType(32), TILE), [0] * TILE))


@_in_registers
def _draw_tile(typing: Any, flat: Any, offset: Any, stride: Any, along_x: Any, x0: Any, along_y: Any,
               y0: Any) -> Any:
    """``flat[offset + i * stride + j] += along_y[y0 + i] * along_x[x0 + j]`` for a tile, in vector
    registers."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
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
def _read_tile(typing: Any, flat: Any, offset: Any, stride: Any, along_x: Any, x0: Any, along_y: Any,
               y0: Any, sums: Any) -> Any:
    """Sums over a tile of ``flat * along_y * along_x`` times 1, j, i and i^2 + j^2, into ``sums``, in vector
    registers."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        flat_, offset_, stride_, x_, x0_, y_, y0_, sums_ = arguments
        fast = dict(flags=("contract", "reassoc"))
        source = _pointer(context, builder, signature.args[0], flat_, offset_)
        column = _pointer(context, builder, signature.args[5], y_, y0_)
        moments = [ir.Constant(_VECTOR, [0.0] * TILE)] * 3
        for i in range(TILE):
            factor = builder.load(builder.gep(column, [_index(i)]))
            value = builder.fmul(_load(builder, source), _repeat(builder, factor), **fast)
            for power in range(3):
                distance = ir.Constant(_VECTOR, [float(i**power)] * TILE)
                weighted = builder.fmul(value, distance, **fast) if power else value
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
def _exponential(x: Any) -> Any:
    """e^x of a float32 within +-0.35, to float32's precision: Taylor's polynomial."""
    value = float32(1 / 720)
    for divisor in (120, 24, 6, 2, 1, 1):
        value = value * x + float32(1 / divisor)
    return value


@_compiled
def _profile(values: np.ndarray, half: int, inside: Any, c: Any, height: Any) -> None:
    """``height exp(-c (j - half + 1 - inside)^2)`` for j = 0 .. 2 half - 1, by recurrence outwards from the
    middle.

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
def _cell(position: Any, size: int) -> Tuple[int, Any]:
    """Grid point at or below a position on a periodic grid, and the remainder in [0, 1)."""
    whole = np.floor(position)
    turn = np.floor(whole / float32(size))
    return min(max(int(whole - turn * float32(size)), 0), size - 1), float32(position - whole)


@_compiled
def _wrap(columns: np.ndarray, first: int, count: int, size: int) -> None:
    """``(first + j) % size`` for j below `count`, into columns."""
    column = first % size
    for j in range(count):
        columns[j] = column
        column = column + 1 if column + 1 < size else 0


@_compiled
def _outline(along_x: np.ndarray, along_y: np.ndarray, position: np.ndarray, c: Any, height: Any, half: int,
             size: int) -> Tuple[int, int, Any, Any, bool]:
    """Profiles of one Gaussian in the square of 2 half points that it is drawn in.

    Returns the square's first column and row, the Gaussian's distance past the grid point below it along x
    and y, and whether the square lies within the grid.
    """
    column, inside_x = _cell(position[0], size)
    row, inside_y = _cell(position[1], size)
    _profile(along_x, half, inside_x, c, float32(1))
    _profile(along_y, half, inside_y, c, height)
    left, top = column - half + 1, row - half + 1
    lies_within = left >= 0 and top >= 0 and left + 2 * half <= size and top + 2 * half <= size
    return left, top, inside_x, inside_y, lies_within


@_compiled
def _draw(grids: np.ndarray, xy: np.ndarray, heights: np.ndarray, c: np.ndarray, tiles: np.ndarray) -> None:
    """Add Gaussians to periodic grids.

    grids [C, M, M]; xy [C, N, 2] in grid points; heights [1 or C, N]; c [1 or C, N], 1 / (2 sigma^2); tiles,
    as c: edge of the square that is drawn, in tiles.
    """
    size, most = grids.shape[1], TILE * tiles.max()
    along_x, along_y = np.empty(most, np.float32), np.empty(most, np.float32)
    columns = np.empty(most, np.int64)
    for b in range(grids.shape[0]):
        flat, own, height = grids[b].reshape(-1), b % c.shape[0], b % heights.shape[0]
        for n in range(xy.shape[1]):
            blocks = tiles[own, n]
            half = blocks * (TILE // 2)
            outline = _outline(along_x, along_y, xy[b, n], c[own, n], heights[height, n], half, size)
            left, top, _, _, lies_within = outline
            if lies_within:
                for i in range(blocks):
                    for j in range(blocks):
                        corner = (top + TILE * i) * size + left + TILE * j
                        _draw_tile(flat, corner, size, along_x, TILE * j, along_y, TILE * i)
            else:
                _wrap(columns, left, 2 * half, size)
                y = top % size
                for i in range(2 * half):
                    for j in range(2 * half):
                        flat[y * size + columns[j]] += along_y[i] * along_x[j]
                    y = y + 1 if y + 1 < size else 0


@_compiled
def _read(grids: np.ndarray, xy: np.ndarray, c: np.ndarray, tiles: np.ndarray, out: np.ndarray) -> None:
    """The adjoint of `_draw`: for each Gaussian K, sums over the grid g of g K times 1, dx, dy and dx^2 +
    dy^2, into out [C, N, 4]."""
    size, most = grids.shape[1], TILE * tiles.max()
    along_x, along_y = np.empty(most, np.float32), np.empty(most, np.float32)
    columns = np.empty(most, np.int64)
    sums, edge = np.empty(4, np.float32), np.empty(TILE * TILE, np.float32)
    for b in range(grids.shape[0]):
        flat, own = grids[b].reshape(-1), b % c.shape[0]
        for n in range(xy.shape[1]):
            blocks = tiles[own, n]
            half = blocks * (TILE // 2)
            outline = _outline(along_x, along_y, xy[b, n], c[own, n], float32(1), half, size)
            left, top, inside_x, inside_y, lies_within = outline
            if not lies_within:
                _wrap(columns, left, 2 * half, size)
            zeroth = first_x = first_y = second = float32(0)
            for i in range(blocks):
                for j in range(blocks):
                    if lies_within:
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
    """Fourier transforms of projections on a FourierGrid and their adjoint, with NumPy arrays.

    Parameters
    ----------
    grid : FourierGrid.
    threads : int.

    Attributes
    ----------
    size : int, M, edge of the grid that Gaussians are drawn on; spacing_angst : float, of its points.
    least_variance : float, squared width that Gaussians need to be drawn without aliasing, grid points
        squared.
    """

    def __init__(self, grid: FourierGrid, threads: int):
        self.grid, self.threads = grid, threads
        self.size = 2 * fft.next_fast_len(int(np.ceil(0.5 * POINTS_PER_INDEX * (grid.m + 0.5))), real=True)
        self.spacing_angst = grid.box * grid.pixel_size / self.size
        # exp(-2 pi^2 sigma^2 (1 - 2 m / M)): what index M - m leaves at m, over what m holds
        self.least_variance = np.log(1 / LARGEST_ALIAS) / (2 * np.pi**2 * (1 - 2 * grid.m / self.size))
        self._pool: Optional[ThreadPoolExecutor] = None
        if threads > 1:
            self._pool = ThreadPoolExecutor(threads, "projector")

    def project(self, xy: np.ndarray, amplitudes: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """Fourier transforms of projected mixtures, as `projection.project`.

        Parameters
        ----------
        xy : float32 [B, N, 2], Å.
        amplitudes : float32 [N] or [B, N].
        widths : float32 [N] or [B, N], Å.

        Returns
        -------
        float32 [B, 2, 2m+1, m+1].
        """
        xy, shape = self._on_grid(xy), self._shape(widths)
        heights = np.atleast_2d(amplitudes) * (shape.c / np.float32(np.pi))
        out = np.empty((len(xy), 2) + self.grid.shape, np.float32)
        m = self.grid.m

        def project_rows(rows: slice) -> None:
            drawn = np.zeros((len(xy[rows]), self.size, self.size), np.float32)
            _draw(drawn, xy[rows], _of_rows(heights, rows), _of_rows(shape.c, rows),
                  _of_rows(shape.tiles, rows))
            waves = fft.fft(fft.rfft(drawn, axis=2)[:, :, :m + 1], axis=1, overwrite_x=True)
            for target, source in ((out[rows, :, :m], waves[:, -m:]), (out[rows, :, m:], waves[:, :m + 1])):
                target[:, 0], target[:, 1] = source.real, source.imag
            out[rows] *= shape.factor
        self._on_all_threads(project_rows, len(xy))
        return out

    def adjoint(self, upstream: np.ndarray, xy: np.ndarray, amplitudes: np.ndarray,
                widths: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradients of ``sum(upstream * project(xy, amplitudes, widths))``.

        Returns
        -------
        to_xy : float32 [B, N, 2]; to_amplitudes, to_widths : float32 [B, N].
        """
        xy, shape, m = self._on_grid(xy), self._shape(widths), self.grid.m
        sums = np.empty(xy.shape[:2] + (4,), np.float32)
        # the real inverse transform counts indices kx > 0 twice
        counts = np.where(np.arange(m + 1) == 0, self.size**2, 0.5 * self.size**2)
        factor = shape.factor * counts.astype(np.float32)

        def read_rows(rows: slice) -> None:
            waves = np.zeros((len(xy[rows]), self.size, m + 1), np.complex64)
            for target, source in ((waves[:, -m:], upstream[rows, :, :m]),
                                   (waves[:, :m + 1], upstream[rows, :, m:])):
                target.real, target.imag = source[:, 0], source[:, 1]
            waves[:, -m:] *= factor[:m]
            waves[:, :m + 1] *= factor[m:]
            drawn = fft.irfft(fft.ifft(waves, axis=1, overwrite_x=True), self.size, axis=2)
            _read(drawn, xy[rows], _of_rows(shape.c, rows), _of_rows(shape.tiles, rows), sums[rows])
        self._on_all_threads(read_rows, len(xy))
        c, amplitudes = shape.c, np.atleast_2d(amplitudes)
        sums *= (c / np.float32(np.pi))[..., None]
        to_xy = sums[..., 1:3] * (amplitudes * c * np.float32(2 / self.spacing_angst))[..., None]
        # dK/dsigma = K (r^2 / sigma^3 - 2 / sigma), and sigma dsigma = s ds / h^2
        to_widths = amplitudes * (4 * c * c * sums[..., 3] - 4 * c * sums[..., 0])
        return to_xy, sums[..., 0], to_widths * (np.atleast_2d(widths) / np.float32(self.spacing_angst**2))

    def _on_grid(self, xy: np.ndarray) -> np.ndarray:
        """Positions in grid points; the molecule's origin lies in the middle, so that few Gaussians cross the
        edge."""
        scale, middle = np.float32(1 / self.spacing_angst), np.float32(self.size // 2)
        return np.asarray(xy, np.float32) * scale + middle

    def _shape(self, widths: np.ndarray) -> "_Shape":
        """How Gaussians of widths [N] or [B, N] (Å) are drawn."""
        return _Shape(np.atleast_2d(widths).astype(np.float64) / self.spacing_angst, self)

    def _on_all_threads(self, work: Callable[[slice], None], count: int) -> None:
        """Call `work` with slices of a batch of `count` particles, on all threads."""
        most = max(1, CHUNK_VALUES // self.size**2)
        each = min(most, -(-count // self.threads))
        chunks = [slice(i, min(i + each, count)) for i in range(0, count, each)]
        for _ in self._pool.map(work, chunks) if self._pool else map(work, chunks):
            pass


class _Shape:
    """How Gaussians of widths [1 or B, N] (grid points) are drawn.

    Attributes
    ----------
    c : float32 [1 or B, N], 1 / (2 sigma^2) of the widened Gaussians.
    tiles : int64 [1 or B, N], edge of the square that each is drawn in, in tiles.
    factor : float32 [2m+1, m+1], takes the common widening out of the transform and scales it.
    """

    def __init__(self, widths: np.ndarray, projector: LocalProjector):
        grid, size = projector.grid, projector.size
        widening = max(0.0, projector.least_variance - float(widths.min() ** 2))
        variance = widths**2 + widening
        self.c = (0.5 / variance).astype(np.float32)
        # NaN goes through to the image, by c
        tiles = np.nan_to_num(np.ceil(CUTOFF_SIGMAS * np.sqrt(variance) / (TILE // 2)), nan=1)
        self.tiles = np.clip(tiles, 1, MOST_TILES).astype(np.int64)
        index = np.arange(-grid.m, grid.m + 1)
        # a shift by half the grid turns the sign of odd indices
        narrowing = np.exp(2 * np.pi**2 * widening * (index / size) ** 2) * np.where(index % 2, -1, 1)
        scale = 1.0 / (grid.pixel_size**2 * grid.box)
        self.factor = (scale * narrowing[:, None] * narrowing[None, grid.m:]).astype(np.float32)


def _of_rows(array: np.ndarray, rows: slice) -> np.ndarray:
    """The rows of [B, N], or [1, N] as it is."""
    return array if len(array) == 1 else np.asarray(array[rows])
