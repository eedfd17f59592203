//! Masking (RFC 6455 5.3): each byte of a payload XOR the byte of the key at its place modulo 4.

/// A block that the compiler turns into a few vector instructions.
const BLOCK_BYTES: usize = 32;

/// Masks or unmasks `bytes`, whose first one stands at `offset` of its frame's payload.
pub(crate) fn apply(bytes: &mut [u8], mut key: [u8; 4], offset: u64) {
    key.rotate_left((offset % 4) as usize);
    let mut block = [0; BLOCK_BYTES];
    for four in block.chunks_exact_mut(4) {
        four.copy_from_slice(&key);
    }
    let (blocks, rest) = bytes.as_chunks_mut::<BLOCK_BYTES>();
    for bytes in blocks {
        for (byte, key) in bytes.iter_mut().zip(&block) {
            *byte ^= key;
        }
    }
    for (byte, key) in rest.iter_mut().zip(&block) {
        *byte ^= key;
    }
}

/// Appends `masked`, unmasked. Twice through the cache is faster than once byte by byte.
pub(crate) fn push_unmasked(out: &mut Vec<u8>, masked: &[u8], key: [u8; 4], offset: u64) {
    let start = out.len();
    out.extend_from_slice(masked);
    apply(&mut out[start..], key, offset);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_at_any_offset_is_masked_byte_by_byte() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for offset in 0..5_u64 {
            for len in 0..100 {
                let plain: Vec<u8> = (0..len as u8).collect();
                let expected: Vec<u8> =
                    plain.iter().zip(offset..).map(|(byte, at)| byte ^ key[(at % 4) as usize]).collect();
                let mut out = b"before".to_vec();
                push_unmasked(&mut out, &plain, key, offset);
                assert_eq!(&out[6..], expected, "{len} bytes at {offset}");
            }
        }
    }
}
