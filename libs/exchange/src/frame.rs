//! The frame: a header of 24 bytes, then a body.
//!
//! `len u32 | kind u8 | flags u8 | channel u16 | epoch u32 | seq u32 | backlog u64`, little-endian. `channel` is a number
//! given by the sending end of the channel and used again after its end; `epoch` counts the openings on a connection, so
//! that a frame of a former use is recognised; `seq` counts the frames of a channel.

use types::JobId;

use crate::ChannelId;

/// The largest body of a frame: it must fit the largest credit window.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

pub(crate) const HEADER_BYTES: usize = 24;

/// The largest body of any frame but a data frame: an opening or a reason.
const CONTROL_BYTES_MAX: usize = 1_024;

/// The body begins a new Arrow stream, with its schema.
pub(crate) const NEW_SCHEMA: u8 = 1;
/// The frame goes from the receiving to the sending end of its channel.
pub(crate) const TO_SENDER: u8 = 2;
/// The frame had to wait for credit.
pub(crate) const WAITED: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Open = 1,
    Data = 2,
    Watermark = 3,
    Idle = 4,
    Barrier = 5,
    Credit = 6,
    Eos = 7,
    Err = 8,
    /// The sender's next frame is as large as `backlog` says and waits for credit.
    Backlog = 9,
    /// Nothing to say; the peer lives.
    Ping = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Open,
        Self::Data,
        Self::Watermark,
        Self::Idle,
        Self::Barrier,
        Self::Credit,
        Self::Eos,
        Self::Err,
        Self::Backlog,
        Self::Ping,
    ];

    /// The lengths that a body of this kind may have.
    fn accepts(self, len: usize) -> bool {
        match self {
            Self::Data => (1..=FRAME_BYTES_MAX).contains(&len),
            Self::Open => (1..=CONTROL_BYTES_MAX).contains(&len),
            Self::Err => len <= CONTROL_BYTES_MAX,
            Self::Watermark | Self::Barrier | Self::Credit => len == 8,
            Self::Idle | Self::Eos | Self::Backlog | Self::Ping => len == 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: usize,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) channel: u16,
    pub(crate) opening: u32,
    pub(crate) seq: u32,
    pub(crate) backlog: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&u32::try_from(self.len).unwrap_or(u32::MAX).to_le_bytes());
        out[4] = self.kind as u8;
        out[5] = self.flags;
        out[6..8].copy_from_slice(&self.channel.to_le_bytes());
        out[8..12].copy_from_slice(&self.opening.to_le_bytes());
        out[12..16].copy_from_slice(&self.seq.to_le_bytes());
        out[16..].copy_from_slice(&self.backlog.to_le_bytes());
        out
    }

    /// Reads a header; says what is wrong with it before a byte of the body is awaited.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, String> {
        let u32_at = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let kind = Kind::ALL.into_iter().find(|k| *k as u8 == bytes[4]);
        let kind = kind.ok_or_else(|| format!("frame kind {} is unknown", bytes[4]))?;
        let len = usize::try_from(u32_at(0)).unwrap_or(usize::MAX);
        if !kind.accepts(len) {
            return Err(format!("a {kind:?} frame has a body of {len} bytes; data frames may have {FRAME_BYTES_MAX}"));
        }
        let backlog = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
        let channel = u16::from_le_bytes([bytes[6], bytes[7]]);
        Ok(Self { len, kind, flags: bytes[5], channel, opening: u32_at(8), seq: u32_at(12), backlog })
    }
}

/// The body of an opening.
pub(crate) fn encode_id(id: &ChannelId) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [id.attempt, id.edge, id.from, id.to] {
        out.extend(number.to_le_bytes());
    }
    out.extend(id.job.as_str().as_bytes());
    out
}

pub(crate) fn decode_id(body: &[u8]) -> Result<ChannelId, String> {
    let (numbers, job) = body.split_at_checked(16).ok_or("an opening is too short")?;
    let number = |i: usize| u32::from_le_bytes([numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]]);
    let job: JobId = std::str::from_utf8(job).map_err(|e| e.to_string())?.parse().map_err(|e| format!("{e}"))?;
    Ok(ChannelId { job, attempt: number(0), edge: number(4), from: number(8), to: number(12) })
}

/// A reason, cut to what a frame may hold.
pub(crate) fn encode_reason(reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(CONTROL_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.as_bytes()[..end].to_vec()
}

/// The eight bytes of a watermark, barrier or grant.
pub(crate) fn number(body: &[u8]) -> Result<[u8; 8], String> {
    body.try_into().map_err(|_| format!("a body of {} bytes is not a number", body.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_what_it_writes() {
        for kind in Kind::ALL {
            let len = (0..=8).rev().find(|len| kind.accepts(*len)).unwrap();
            let header = Header { len, kind, flags: 3, channel: 0x1234, opening: 7, seq: u32::MAX, backlog: 1 << 40 };
            assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
    }

    /// Workers of two releases speak with each other while one is exchanged for the other.
    #[test]
    fn golden_frames_are_read_for_ever() {
        let header =
            Header { len: 8, kind: Kind::Credit, flags: 2, channel: 0x1234, opening: 7, seq: 9, backlog: 1 << 40 };
        let golden = *b"\x08\0\0\0\x06\x02\x34\x12\x07\0\0\0\x09\0\0\0\0\0\0\0\0\x01\0\0";
        assert_eq!((header.encode(), Header::decode(&golden)), (golden, Ok(header)));
        let id = ChannelId { job: "job-1".parse().unwrap(), attempt: 2, edge: 3, from: 4, to: 5 };
        let golden = b"\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05\0\0\0job-1";
        assert_eq!((encode_id(&id).as_slice(), decode_id(golden)), (golden.as_slice(), Ok(id)));
        assert_eq!(Kind::ALL.map(|kind| kind as u8), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn lengths_are_checked_before_the_body() {
        let mut header =
            Header { len: FRAME_BYTES_MAX, kind: Kind::Data, flags: 0, channel: 0, opening: 0, seq: 0, backlog: 0 };
        assert!(Header::decode(&header.encode()).is_ok());
        for (kind, len) in
            [(Kind::Data, FRAME_BYTES_MAX + 1), (Kind::Data, 0), (Kind::Open, 2_000), (Kind::Credit, 9), (Kind::Eos, 1)]
        {
            (header.kind, header.len) = (kind, len);
            assert!(Header::decode(&header.encode()).is_err(), "{kind:?} {len}");
        }
        assert!(Header::decode(&[0xff; HEADER_BYTES]).is_err());
    }

    #[test]
    fn an_opening_reads_what_it_writes() {
        let id = ChannelId { job: "job-1".parse().unwrap(), attempt: 2, edge: 3, from: 4, to: 5 };
        assert_eq!(decode_id(&encode_id(&id)), Ok(id));
        for bad in [b"".as_slice(), &[0; 16], &[0xff; 20], &[b'.'; 20]] {
            assert!(decode_id(bad).is_err(), "{bad:?}");
        }
        assert_eq!(encode_reason(&"ä".repeat(2_000)).len(), CONTROL_BYTES_MAX);
    }
}
