//! Numbers the protocol gives to key types and data types (protocol.md 4.2 to 4.4). Never
//! renumbered.

/// Key type of a table, as numbered on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KeyType {
    /// 4 bytes, big-endian, shown unsigned.
    Integer = 2,
    /// 4 bytes in network order.
    Ipv4 = 4,
    /// 16 bytes in network order.
    Ipv6 = 5,
    /// Length and bytes, no NUL.
    String = 6,
    /// Exactly the table's key length, zero padded.
    Binary = 7,
}

impl KeyType {
    /// The type numbered `n` on the wire.
    pub fn from_wire(n: u64) -> Option<KeyType> {
        Some(match n {
            2 => KeyType::Integer,
            4 => KeyType::Ipv4,
            5 => KeyType::Ipv6,
            6 => KeyType::String,
            7 => KeyType::Binary,
            _ => return None,
        })
    }

    /// As `show table` prints it.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::Integer => "integer",
            KeyType::Ipv4 => "ip",
            KeyType::Ipv6 => "ipv6",
            KeyType::String => "string",
            KeyType::Binary => "binary",
        }
    }
}

/// How one value of a type travels and is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One varint, sign-extended from 32 bits.
    I32,
    /// One varint.
    U32,
    /// One varint.
    U64,
    /// Three varints: age of the current period in ms, its count, the previous period's count.
    Rate,
    /// A string through the session's dictionary.
    Dict,
}

/// A stick table data type; the number is its bit in a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataType(u8);

struct Row {
    name: &'static str,
    kind: Kind,
    array: bool,
}

const fn row(name: &'static str, kind: Kind, array: bool) -> Row {
    Row { name, kind, array }
}

const TYPES: [Row; DataType::COUNT] = [
    row("server_id", Kind::I32, false),
    row("gpt0", Kind::U32, false),
    row("gpc0", Kind::U32, false),
    row("gpc0_rate", Kind::Rate, false),
    row("conn_cnt", Kind::U32, false),
    row("conn_rate", Kind::Rate, false),
    row("conn_cur", Kind::U32, false),
    row("sess_cnt", Kind::U32, false),
    row("sess_rate", Kind::Rate, false),
    row("http_req_cnt", Kind::U32, false),
    row("http_req_rate", Kind::Rate, false),
    row("http_err_cnt", Kind::U32, false),
    row("http_err_rate", Kind::Rate, false),
    row("bytes_in_cnt", Kind::U64, false),
    row("bytes_in_rate", Kind::Rate, false),
    row("bytes_out_cnt", Kind::U64, false),
    row("bytes_out_rate", Kind::Rate, false),
    row("gpc1", Kind::U32, false),
    row("gpc1_rate", Kind::Rate, false),
    row("server_key", Kind::Dict, false),
    row("http_fail_cnt", Kind::U32, false),
    row("http_fail_rate", Kind::Rate, false),
    row("gpt", Kind::U32, true),
    row("gpc", Kind::U32, true),
    row("gpc_rate", Kind::Rate, true),
    row("glitch_cnt", Kind::U32, false),
    row("glitch_rate", Kind::Rate, false),
];

impl DataType {
    /// Types known to HAProxy 3.5.
    pub const COUNT: usize = 27;
    /// All of them as a bitfield.
    pub const KNOWN_MASK: u64 = (1 << Self::COUNT) - 1;
    /// Server number (bit 0).
    pub const SERVER_ID: DataType = DataType(0);
    /// General purpose tag (bit 1).
    pub const GPT0: DataType = DataType(1);
    /// General purpose counter (bit 2).
    pub const GPC0: DataType = DataType(2);
    /// Current connections (bit 6): local to each node since HAProxy 2.5.
    pub const CONN_CUR: DataType = DataType(6);
    /// Second general purpose counter (bit 17).
    pub const GPC1: DataType = DataType(17);
    /// Server name (bit 19).
    pub const SERVER_KEY: DataType = DataType(19);
    /// Array of tags (bit 22).
    pub const GPT: DataType = DataType(22);
    /// Array of counters (bit 23).
    pub const GPC: DataType = DataType(23);
    /// Array of rates (bit 24).
    pub const GPC_RATE: DataType = DataType(24);

    /// The type with bit number `bit`, if known.
    pub fn from_bit(bit: u32) -> Option<DataType> {
        ((bit as usize) < Self::COUNT).then_some(DataType(bit as u8))
    }

    /// The type called `name` in configuration and `show table` (`server_name` is the old spelling
    /// of `server_key`).
    pub fn from_name(name: &str) -> Option<DataType> {
        let name = if name == "server_name" { "server_key" } else { name };
        TYPES.iter().position(|t| t.name == name).map(|i| DataType(i as u8))
    }

    /// All known types in ascending order.
    pub fn all() -> impl Iterator<Item = DataType> {
        (0..Self::COUNT as u8).map(DataType)
    }

    /// Known types of a bitfield in ascending order, up to the first unknown bit: behind that,
    /// sizes cannot be known.
    pub fn of_bits(bits: u64) -> impl Iterator<Item = DataType> {
        Self::all().filter(move |t| bits & t.mask() != 0)
    }

    /// Bit number.
    #[inline]
    pub fn bit(self) -> u32 {
        u32::from(self.0)
    }

    /// `1 << bit`.
    #[inline]
    pub fn mask(self) -> u64 {
        1 << self.0
    }

    /// Name in configuration.
    pub fn name(self) -> &'static str {
        TYPES[self.0 as usize].name
    }

    /// How one element is encoded.
    #[inline]
    pub fn kind(self) -> Kind {
        TYPES[self.0 as usize].kind
    }

    /// True for `gpt`, `gpc`, `gpc_rate`: a count of elements belongs to it.
    pub fn is_array(self) -> bool {
        TYPES[self.0 as usize].array
    }

    /// True when a period belongs to it.
    pub fn is_rate(self) -> bool {
        self.kind() == Kind::Rate
    }

    /// True when a definition carries parameters for it.
    pub fn has_parameters(self) -> bool {
        self.is_array() || self.is_rate()
    }
}
