//! Messages by class and type (protocol.md 3.2 to 3.4).

use super::error::{DecodeError, What};
use super::frame::{self, Frame, class};
use super::varint::{self, Reader};

/// Control messages, class 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Control {
    /// Please dump everything you know.
    ResyncRequest = 0,
    /// End of a dump; the teacher is up to date.
    ResyncFinished = 1,
    /// End of a dump; the teacher is not up to date.
    ResyncPartial = 2,
    /// Answer to either end.
    ResyncConfirm = 3,
    /// Keep-alive.
    Heartbeat = 4,
}

impl Control {
    /// The two bytes of the message.
    pub fn bytes(self) -> [u8; 2] {
        [class::CONTROL, self as u8]
    }
}

/// Error messages, class 1: the sender closes behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorCode {
    /// Malformed message.
    Protocol = 0,
    /// Message longer than a buffer.
    SizeLimit = 1,
}

impl ErrorCode {
    /// The two bytes of the message.
    pub fn bytes(self) -> [u8; 2] {
        [class::ERROR, self as u8]
    }
}

/// The four forms of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateForm {
    /// The message carries its id (0x80, 0x85); otherwise it is the table's previous id plus one.
    pub explicit_id: bool,
    /// The message carries a remaining lifetime (0x85, 0x86).
    pub timed: bool,
}

impl UpdateForm {
    /// Type byte of the form.
    #[inline]
    pub fn kind(self) -> u8 {
        match (self.explicit_id, self.timed) {
            (true, false) => kind::UPDATE,
            (false, false) => kind::UPDATE_INCREMENTAL,
            (true, true) => kind::UPDATE_TIMED,
            (false, true) => kind::UPDATE_INCREMENTAL_TIMED,
        }
    }
}

/// Type bytes of class 10.
pub mod kind {
    /// Update with an id.
    pub const UPDATE: u8 = 0x80;
    /// Update without an id.
    pub const UPDATE_INCREMENTAL: u8 = 0x81;
    /// Table definition.
    pub const DEFINE: u8 = 0x82;
    /// Switch to a table defined before.
    pub const SWITCH: u8 = 0x83;
    /// Acknowledgement.
    pub const ACK: u8 = 0x84;
    /// Update with an id and a lifetime.
    pub const UPDATE_TIMED: u8 = 0x85;
    /// Update with a lifetime and no id.
    pub const UPDATE_INCREMENTAL_TIMED: u8 = 0x86;
}

/// A message by meaning; table messages keep their payload for the session's current table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Class 0.
    Control(Control),
    /// Class 1; the type may be unknown.
    Error(u8),
    /// 0x82.
    Define(&'a [u8]),
    /// 0x83: the sender's table id.
    Switch(i32),
    /// 0x84: our id for the table, and the id of the last update applied.
    Ack {
        /// The id we used in our definition.
        table: i32,
        /// The peer has everything up to here.
        uid: u32,
    },
    /// 0x80, 0x81, 0x85, 0x86.
    Update(UpdateForm, &'a [u8]),
    /// Unknown class or type: skipped by its length.
    Unknown,
}

/// True for what asks for the tables or changes them: a request for a lesson, and the four forms of
/// an update.
pub fn touches_tables(frame: &Frame<'_>) -> bool {
    let updates = [
        kind::UPDATE,
        kind::UPDATE_INCREMENTAL,
        kind::UPDATE_TIMED,
        kind::UPDATE_INCREMENTAL_TIMED,
    ];
    match frame.class {
        class::TABLE => updates.contains(&frame.kind),
        class::CONTROL => frame.kind == Control::ResyncRequest as u8,
        _ => false,
    }
}

impl<'a> Message<'a> {
    /// Reads a frame's meaning. Only SWITCH and ACK can fail here; definitions and updates are
    /// decoded by whoever knows the tables.
    #[inline]
    pub fn of(frame: &Frame<'a>) -> Result<Message<'a>, DecodeError> {
        let payload = frame.payload;
        Ok(match (frame.class, frame.kind) {
            (class::TABLE, kind::UPDATE) => {
                Message::Update(UpdateForm { explicit_id: true, timed: false }, payload)
            }
            (class::TABLE, kind::UPDATE_INCREMENTAL) => {
                Message::Update(UpdateForm { explicit_id: false, timed: false }, payload)
            }
            (class::TABLE, kind::UPDATE_TIMED) => {
                Message::Update(UpdateForm { explicit_id: true, timed: true }, payload)
            }
            (class::TABLE, kind::UPDATE_INCREMENTAL_TIMED) => {
                Message::Update(UpdateForm { explicit_id: false, timed: true }, payload)
            }
            (class::TABLE, kind::DEFINE) => Message::Define(payload),
            (class::TABLE, kind::SWITCH) => {
                let id = Reader::new(payload).varint(What::TableId)?;
                Message::Switch(id as u32 as i32)
            }
            (class::TABLE, kind::ACK) => {
                let mut r = Reader::new(payload);
                let table = r.varint(What::TableId)? as u32 as i32;
                Message::Ack { table, uid: r.u32_be(What::UpdateId)? }
            }
            (class::CONTROL, 0) => Message::Control(Control::ResyncRequest),
            (class::CONTROL, 1) => Message::Control(Control::ResyncFinished),
            (class::CONTROL, 2) => Message::Control(Control::ResyncPartial),
            (class::CONTROL, 3) => Message::Control(Control::ResyncConfirm),
            (class::CONTROL, 4) => Message::Control(Control::Heartbeat),
            (class::ERROR, code) => Message::Error(code),
            _ => Message::Unknown,
        })
    }
}

/// Appends an ACK. `table` is the id the peer gave the table in its definition.
pub fn encode_ack(out: &mut Vec<u8>, table: i32, uid: u32) {
    frame::build(out, class::TABLE, kind::ACK, |out| {
        varint::encode(out, i64::from(table) as u64);
        out.extend_from_slice(&uid.to_be_bytes());
    });
}

/// Appends a SWITCH to the table we defined as `table`.
pub fn encode_switch(out: &mut Vec<u8>, table: i32) {
    frame::build(out, class::TABLE, kind::SWITCH, |out| {
        varint::encode(out, i64::from(table) as u64);
    });
}

/// Appends a DEFINE.
pub fn encode_define(out: &mut Vec<u8>, definition: &super::Definition) {
    frame::build(out, class::TABLE, kind::DEFINE, |out| definition.encode(out));
}
