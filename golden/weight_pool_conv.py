"""Exact convolutions whose weights are vectors of a pool.

The result of a pool vector for a group of channels at one pixel is needed by every kernel position
that covers the pixel and by every output channel, so it is computed once: as a weighted sum of
rows of the look-up table, one for each plane of the activations.  These results lie in a bank,
[entries, pixels], and an output channel at a kernel position adds the row that its index names,
shifted by as many pixels as the position is away from the corner.

For that, a *frame* holds a padded image pixel by pixel.  A stride cuts it into *phases*: pixels
that the same kernel positions read.  In the memory of a phase, the rows of images follow each
other, so a shift of the whole block is one slice; what it yields between rows and images is junk,
which is left out at the end.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from golden.weight_pool_kmeans import cut

__all__ = ["PoolProduct", "plane_addresses"]

#: Bytes of a bank, of accumulators and of two temporaries of a block of pixels together.
BLOCK_BYTES = 3 << 19

#: Pixels of a block at least.
MIN_PIXELS = 64

#: Bits of a byte, and channels whose bits make a word of 8 plane addresses.
BYTE = 8

#: Shift and mask of each step of a transposition of 8 x 8 bits, which swaps the bits of the mask
#: with those that are so much higher (H. S. Warren, Hacker's Delight, section 7-3).
TRANSPOSITION = (
    (7, 0x00AA00AA00AA00AA),
    (14, 0x0000CCCC0000CCCC),
    (28, 0x00000000F0F0F0F0),
)


class _Block(NamedTuple):
    """Some output rows of some images, and the frame they need."""

    images: slice
    rows: slice
    frame: npt.NDArray[np.uint8]


def plane_addresses(bytes_: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Transpose the bits of groups of eight bytes: bit i of result j is bit j of byte i.

    Parameters
    ----------
    bytes_ : ndarray of uint8, [..., 8]
        Codes of the channels of a group; C-contiguous.

    Returns
    -------
    ndarray of uint8, [..., 8]
        Addresses of planes 0 to 7.
    """
    words = bytes_.reshape(-1).view("<u8").astype(np.uint64)
    for shift, mask in TRANSPOSITION:
        swapped = (words ^ words >> np.uint64(shift)) & np.uint64(mask)
        words ^= swapped ^ swapped << np.uint64(shift)
    return words.astype("<u8", copy=False).view(np.uint8).reshape(bytes_.shape)


class PoolProduct:
    """Convolution, or matrix product, of coded activations with indexed pool vectors.

    Parameters
    ----------
    table : ndarray of int, [2**group, entries]
        Look-up table by address and index; row 0 is zero.
    plane_weights : sequence of int
        Factor of each plane, 2**j but for a sign; 1 to 8 planes.
    indices : ndarray of int, [height, width, blocks, n]
        Pool vector by kernel position, group of channels and output.
    start : ndarray of int64, [n]
        Start values of the accumulators.
    strides : tuple of int
        Steps of the kernel along height and width.
    padding : int
        Code of every pixel and channel that is filled up.

    Attributes
    ----------
    bound : int
        No accumulator, finished or not, is larger in magnitude.

    Raises
    ------
    ValueError
        If an accumulator might not fit 48 bits.
    """

    def __init__(
        self,
        table: npt.NDArray[np.integer],
        plane_weights: Sequence[int],
        indices: npt.NDArray[np.integer],
        start: npt.NDArray[np.int64],
        strides: tuple[int, int] = (1, 1),
        padding: int = 0,
    ) -> None:
        self._group = len(table).bit_length() - 1
        self._indices = indices.astype(np.intp)
        self._start = start
        self._strides = strides
        self._padding = np.uint8(padding & 0xFF)
        largest = np.abs(table).max(axis=0).astype(np.int64)
        sums = largest[self._indices].sum(axis=(0, 1, 2)) * sum(map(abs, plane_weights))
        self.bound = int((sums + np.abs(start)).max(initial=0))
        if self.bound >= 1 << 47:
            raise ValueError(f"accumulators must be below 2**47, not {self.bound}")
        dtype = np.int32 if self.bound < 1 << 31 else np.int64
        self._tables = [table.astype(dtype) * weight for weight in plane_weights]
        height, width, self._blocks, self._outputs = indices.shape
        self._kernel = height, width
        self._phases = min(height, strides[0]), min(width, strides[1])
        #: Pixels of a frame beyond the first that belongs to an output, by axis.
        self._margin = (height - 1) // strides[0], (width - 1) // strides[1]
        pixel_bytes = 2 * (self._outputs + table.shape[1]) * np.dtype(dtype).itemsize
        self._pixels = max(BLOCK_BYTES // pixel_bytes, MIN_PIXELS)

    def from_images(
        self, codes: npt.NDArray[np.uint8], pads: Sequence[int]
    ) -> npt.NDArray[np.int64]:
        """Accumulators for images.

        Parameters
        ----------
        codes : ndarray of uint8, [images, height, width, channels]
            Codes, of which as many low bits count as there are planes.
        pads : sequence of int
            Rows and columns to fill up: top, left, bottom, right.

        Returns
        -------
        ndarray of int64, [images, rows, columns, n]
        """
        top, left, bottom, right = pads
        sizes = (codes.shape[1] + top + bottom, codes.shape[2] + left + right)
        rows, columns = (
            (size - kernel) // stride + 1
            for size, kernel, stride in zip(sizes, self._kernel, self._strides, strict=True)
        )
        result = np.empty((len(codes), rows, columns, self._outputs), np.int64)
        self._run(self._image_blocks(codes, top, left, rows, columns), result)
        return result

    def from_columns(
        self,
        columns: npt.NDArray[np.floating[Any]],
        scale: float,
        output: tuple[int, int],
        dtype: npt.DTypeLike,
    ) -> npt.NDArray[Any]:
        """Accumulators for the rows of a matrix product that is a convolution.

        Parameters
        ----------
        columns : ndarray of float, [m, height * width * channels]
            Activations under the kernel for each output pixel.  They are read where they are
            first needed; overlapping windows must agree, as they do if this was an image.
        scale : float
            Factor, a power of two, that turns them into integers.
        output : tuple of int
            Rows and columns of output pixels in an image.
        dtype : dtype
            Type of the result, which must hold it.

        Returns
        -------
        ndarray, [m, n]
        """
        rows, width = output
        height, right = self._kernel
        channels = columns.shape[1] // (height * right)
        images = len(columns) // (rows * width)
        windows = columns.reshape(images, rows, width, height, right, channels)
        result = np.empty((len(windows), rows, width, self._outputs), dtype)
        self._run(self._window_blocks(windows, scale), result)
        return result.reshape(len(columns), self._outputs)

    def _empty_frame(self, images: int, rows: int, columns: int) -> npt.NDArray[np.uint8]:
        """Frame for some output pixels, [down, right, images, rows, columns, blocks, 8]."""
        height, width = rows + self._margin[0], columns + self._margin[1]
        shape = (*self._phases, images, height, width, self._blocks, BYTE)
        return np.full(shape, self._padding)

    def _slices(self, images: int, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
        """Cut images into blocks: several whole ones, or some rows of one."""
        height, width = rows + self._margin[0], columns + self._margin[1]
        image_step = max(self._pixels // (height * width), 1)
        # Even parts, because each needs the rows of its margin besides.
        parts = -(-rows // max(self._pixels // width - self._margin[0], 1))
        row_step = -(-rows // parts)
        for image in range(0, images, image_step):
            for row in range(0, rows, row_step):
                yield (
                    slice(image, min(image + image_step, images)),
                    slice(row, min(row + row_step, rows)),
                )

    def _image_blocks(
        self, codes: npt.NDArray[np.uint8], top: int, left: int, rows: int, columns: int
    ) -> Iterator[_Block]:
        count, height, width, channels = codes.shape
        down, right = self._strides
        framed = np.full(
            (
                count,
                max(top + height, (rows + self._margin[0]) * down),
                max(left + width, (columns + self._margin[1]) * right),
                channels,
            ),
            self._padding,
        )
        framed[:, top : top + height, left : left + width] = codes
        for images, block_rows in self._slices(count, rows, columns):
            frame = self._empty_frame(
                images.stop - images.start, block_rows.stop - block_rows.start, columns
            )
            high, wide = frame.shape[3:5]
            for y, x in np.ndindex(self._phases):
                first = block_rows.start * down + y
                pixels = framed[images, first::down, x::right][:, :high, :wide]
                self._fill(frame[y, x], pixels)
            yield _Block(images, block_rows, frame)

    def _window_blocks(
        self, windows: npt.NDArray[np.floating[Any]], scale: float
    ) -> Iterator[_Block]:
        count, rows, columns = windows.shape[:3]
        down, right = self._strides
        for images, block_rows in self._slices(count, rows, columns):
            block = windows[images, block_rows]
            frame = self._empty_frame(len(block), block.shape[1], columns)
            for y, x in np.ndindex(self._kernel):
                # All but the last row or column were under the kernel one step before.
                row = block.shape[1] - 1 if y >= down else 0
                column = columns - 1 if x >= right else 0
                values = block[:, row:, column:, y, x] * windows.dtype.type(scale)
                target = frame[y % down, x % right][:, y // down + row :, x // right + column :][
                    :, : values.shape[1], : values.shape[2]
                ]
                self._fill(target, values.astype(np.int16).astype(np.uint8))
            yield _Block(images, block_rows, frame)

    def _fill(self, target: npt.NDArray[np.uint8], codes: npt.NDArray[np.uint8]) -> None:
        """Copy pixels [..., channels] to groups [..., blocks, 8]."""
        whole = codes.shape[-1] // self._group
        split = whole * self._group
        target[..., :whole, : self._group] = cut(codes[..., :split], self._group)
        if split < codes.shape[-1]:
            target[..., whole, : codes.shape[-1] - split] = codes[..., split:]

    def _run(self, blocks: Iterator[_Block], result: npt.NDArray[Any]) -> None:
        for images, rows, frame in blocks:
            sums = self._accumulate(frame)
            valid = sums[:, :, : rows.stop - rows.start, : result.shape[2]]
            # The caller knows that the type holds it.
            np.add(
                valid.transpose(1, 2, 3, 0), self._start, out=result[images, rows], casting="unsafe"
            )

    def _accumulate(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer]:
        """Add up results: [n, images, rows, columns] of a phase, with junk at the margins."""
        down, right = self._strides
        images, height, width = frame.shape[2:5]
        pixels = images * height * width
        addresses = plane_addresses(frame)
        padded = np.empty((self._outputs, pixels), self._tables[0].dtype)
        # The last sum that all kernel positions contribute to is that of the last output.
        length = pixels - self._margin[0] * width - self._margin[1]
        sums = np.zeros((self._outputs, length), padded.dtype)
        for block in range(self._blocks):
            for y, x in np.ndindex(self._phases):
                bank = self._bank(addresses[y, x, ..., block, :].reshape(pixels, BYTE))
                for ky in range(y, self._kernel[0], down):
                    for kx in range(x, self._kernel[1], right):
                        shift = ky // down * width + kx // right
                        sums += bank[:, shift : shift + length][self._indices[ky, kx, block]]
        padded[:, :length] = sums
        return padded.reshape(self._outputs, images, height, width)

    def _bank(self, addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer]:
        """Results of all pool vectors, [entries, pixels], for the planes of one group."""
        total = self._tables[0].take(addresses[:, 0], axis=0)
        part = np.empty_like(total)
        for plane, table in enumerate(self._tables[1:], 1):
            # No address is out of range; this mode saves a copy.
            table.take(addresses[:, plane], axis=0, out=part, mode="clip")
            np.add(total, part, out=total)
        return np.ascontiguousarray(total.T)
