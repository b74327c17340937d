//! Byte statistics of samples, in one pass each.
//!
//! Of a sample of `n` bytes with counts `c_v`: entropy `log2 n - sum(c_v log2 c_v) / n`; chi-square against uniform
//! bytes `256 / n * sum(c_v^2) - n`; circular serial correlation `(n sum(x_i x_{i+1}) - (sum x)^2) / (n sum(x^2) -
//! (sum x)^2)` (Knuth, as ENT has it; 1 for constant bytes). The spread is the largest less the smallest entropy of
//! the whole blocks of [`BLOCK`] bytes of all samples.

use std::sync::LazyLock;

use super::WINDOW;

/// Bytes of a block for the spread.
pub const BLOCK: usize = 1024;

/// `n log2 n` for every count that a window can hold.
static N_LOG2_N: LazyLock<Vec<f32>> = LazyLock::new(|| {
    (0..=WINDOW)
        .map(|n| if n == 0 { 0.0 } else { n as f64 * (n as f64).log2() } as f32)
        .collect()
});

/// Statistics of one sample of at most [`WINDOW`] bytes.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// Count of each byte value.
    pub counts: [u16; 256],
    /// Bytes.
    pub length: usize,
    /// Bits per byte.
    pub entropy: f32,
    /// Chi-square against uniform bytes, 255 degrees of freedom.
    pub chi_square: f32,
    /// Circular serial correlation.
    pub serial: f32,
    /// Smallest and largest entropy of its whole blocks; none where it has none.
    pub blocks: Option<(f32, f32)>,
}

impl Default for Statistics {
    fn default() -> Self {
        Statistics {
            counts: [0; 256],
            length: 0,
            entropy: 0.0,
            chi_square: 0.0,
            serial: 0.0,
            blocks: None,
        }
    }
}

/// Four histograms side by side, so that equal neighbours do not wait for one another.
fn count(bytes: &[u8]) -> [u16; 256] {
    let mut lanes = [[0u16; 256]; 4];
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
        lanes[0][(word & 255) as usize] += 1;
        lanes[1][(word >> 8 & 255) as usize] += 1;
        lanes[2][(word >> 16 & 255) as usize] += 1;
        lanes[3][(word >> 24 & 255) as usize] += 1;
        lanes[0][(word >> 32 & 255) as usize] += 1;
        lanes[1][(word >> 40 & 255) as usize] += 1;
        lanes[2][(word >> 48 & 255) as usize] += 1;
        lanes[3][(word >> 56) as usize] += 1;
    }
    for byte in chunks.remainder() {
        lanes[0][*byte as usize] += 1;
    }
    let mut counts = [0u16; 256];
    for i in 0..256 {
        counts[i] = lanes[0][i] + lanes[1][i] + lanes[2][i] + lanes[3][i];
    }
    counts
}

fn entropy(counts: &[u16; 256], length: usize, table: &[f32]) -> f32 {
    if length == 0 {
        return 0.0;
    }
    let mut sums = [0.0f32; 8];
    for eight in counts.chunks_exact(8) {
        for (sum, n) in sums.iter_mut().zip(eight) {
            *sum += table[usize::from(*n).min(WINDOW)];
        }
    }
    let sum: f64 = sums.iter().map(|x| f64::from(*x)).sum();
    let n = length as f64;
    ((n.log2() - sum / n).max(0.0)) as f32
}

/// Sum of the products of neighbours, the last with the first.
fn products(bytes: &[u8]) -> u64 {
    if bytes.is_empty() {
        return 0;
    }
    let (left, right) = (&bytes[..bytes.len() - 1], &bytes[1..]);
    let mut sum = 0u64;
    for (a, b) in left.chunks(1024).zip(right.chunks(1024)) {
        let part: u32 = a
            .iter()
            .zip(b)
            .map(|(x, y)| u32::from(u16::from(*x) * u16::from(*y)))
            .sum();
        sum += u64::from(part);
    }
    sum + u64::from(bytes[bytes.len() - 1]) * u64::from(bytes[0])
}

/// Measures one sample; bytes beyond [`WINDOW`] are not looked at.
pub fn measure(bytes: &[u8]) -> Statistics {
    let bytes = &bytes[..bytes.len().min(WINDOW)];
    let table = &N_LOG2_N[..];
    let mut counts = [0u16; 256];
    let mut blocks: Option<(f32, f32)> = None;
    for block in bytes.chunks(BLOCK) {
        let of_block = count(block);
        if block.len() == BLOCK {
            let h = entropy(&of_block, BLOCK, table);
            blocks = Some(blocks.map_or((h, h), |(low, high)| (low.min(h), high.max(h))));
        }
        for (all, part) in counts.iter_mut().zip(of_block) {
            *all += part;
        }
    }
    let n = bytes.len() as f64;
    let (mut squares, mut sum, mut sum2) = (0u64, 0u64, 0u64);
    for (value, c) in counts.iter().enumerate() {
        let (value, c) = (value as u64, u64::from(*c));
        squares += c * c;
        sum += value * c;
        sum2 += value * value * c;
    }
    let chi_square = if bytes.is_empty() {
        0.0
    } else {
        (256.0 / n * squares as f64 - n).max(0.0)
    };
    let (sum, sum2) = (sum as f64, sum2 as f64);
    let spread = n * sum2 - sum * sum;
    let serial = if bytes.is_empty() {
        0.0
    } else if spread <= 0.0 {
        1.0
    } else {
        (n * products(bytes) as f64 - sum * sum) / spread
    };
    Statistics {
        counts,
        length: bytes.len(),
        entropy: entropy(&counts, bytes.len(), table),
        chi_square: chi_square as f32,
        serial: serial.clamp(-1.0, 1.0) as f32,
        blocks,
    }
}

impl Statistics {
    /// Bytes of printable ASCII, tab, line feed and carriage return.
    pub fn printable(&self) -> u32 {
        let printable: u32 = self.counts[0x20..0x7f].iter().map(|c| u32::from(*c)).sum();
        printable
            + u32::from(self.counts[9])
            + u32::from(self.counts[10])
            + u32::from(self.counts[13])
    }

    /// Control bytes that text does not have (form feed and escape are let pass).
    pub fn controls(&self) -> u32 {
        let all: u32 = self.counts[..0x20].iter().map(|c| u32::from(*c)).sum();
        let fine: u32 = [9, 10, 12, 13, 27]
            .iter()
            .map(|b| u32::from(self.counts[*b as usize]))
            .sum();
        all - fine + u32::from(self.counts[0x7f])
    }

    /// Bytes from 0x80.
    pub fn high(&self) -> u32 {
        self.counts[0x80..].iter().map(|c| u32::from(*c)).sum()
    }

    /// How much the sample looks like the output of a cipher, 0..=1.
    ///
    /// A logistic function of four distances from random bytes, each in standard deviations and at most 12: chi-square
    /// (mean 255, deviation 22.6), the balance of ones and zeros, the agreement of bits one and two places apart within
    /// a byte, and the serial correlation. Its weights were fitted to samples of 4 KiB of openssl (CTR, CBC, ChaCha20)
    /// against gzip, bzip2, xz, zstd, lz4, PNG and jar. The output of xz and of the strongest zstd cannot be told from a
    /// cipher's by its bytes: that is what the structure is for. Below 256 bytes nothing can be said: 0.
    pub fn encrypted_like(&self) -> f32 {
        if self.length < 256 {
            return 0.0;
        }
        let n = self.length as f32;
        let chi = (self.chi_square - 255.0) / 22.6;
        let mut sums = [0i64; 3];
        for (count, weights) in self.counts.iter().zip(&BITS) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += i64::from(*count) * i64::from(*weight);
            }
        }
        let bits =
            |which: usize, pairs: f32| sums[which].unsigned_abs() as f32 / (pairs * n).sqrt();
        let x = 2.875
            - 0.369 * chi.abs().min(12.0)
            - 0.811 * bits(0, 8.0).min(12.0)
            - 0.314 * bits(1, 7.0).min(12.0)
            - 0.271 * bits(2, 6.0).min(12.0)
            - 0.304 * (self.serial.abs() * n.sqrt()).min(12.0);
        1.0 / (1.0 + (-x).exp())
    }
}

/// Of each byte value: ones less zeros, and agreements less disagreements of bits one and two places apart.
static BITS: [[i8; 3]; 256] = bits();

const fn bits() -> [[i8; 3]; 256] {
    let mut table = [[0; 3]; 256];
    let mut v = 0;
    while v < 256 {
        let byte = v as u32;
        let ones = byte.count_ones() as i8;
        let one_apart = ((byte ^ (byte >> 1)) & 0x7f).count_ones() as i8;
        let two_apart = ((byte ^ (byte >> 2)) & 0x3f).count_ones() as i8;
        table[v] = [2 * ones - 8, 7 - 2 * one_apart, 6 - 2 * two_apart];
        v += 1;
    }
    table
}
