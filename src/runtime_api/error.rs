//! What the stats socket refuses, in HAProxy 3.2's own words.
//!
//! One enum for every reply that says no. Built by the parsers of this module and by whoever runs a
//! [`super::Command`]; written by [`super::CliConn`], which adds the severity and the framing.
//! Rule: the text of a variant is byte for byte what HAProxy prints (runtime-api.md 3), scripts
//! match on it.

use thiserror::Error;

/// A refused command. Nothing was changed, but where the variant says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CliError {
    /// No table has that name. *Effect:* none.
    #[error("No such table")]
    NoSuchTable,
    /// The key is none of the table's type. *Effect:* none.
    #[error("Invalid key")]
    InvalidKey,
    /// `key` without a word behind it. *Effect:* none.
    #[error("Key value expected")]
    KeyExpected,
    /// `ptr` without a word that starts with `0x`. *Effect:* none.
    #[error("Pointer expected (0xffff notation)")]
    PointerExpected,
    /// `ptr 0x…` with something else than hexadecimal digits. *Effect:* none.
    #[error("Malformed ptr.")]
    MalformedPointer,
    /// No live entry of the table is shown under that pointer. *Effect:* none.
    #[error("No entry can be found matching ptr.")]
    NoEntryAtPointer,
    /// A filter names a type that does not exist. *Effect:* none.
    #[error("Filter entry #{0}: Unknown data type")]
    FilterUnknownType(usize),
    /// A filter names a type the table does not store. *Effect:* none.
    #[error("Filter entry #{0}: Data type not stored in this table")]
    FilterNotStored(usize),
    /// A filter without a known operator. *Effect:* none.
    #[error(
        "Filter entry #{0}: Require and operator among \"eq\", \"ne\", \"le\", \"ge\", \"lt\", \
         \"gt\""
    )]
    FilterOperator(usize),
    /// A filter without a number. *Effect:* none.
    #[error("Filter entry #{0}: Require a valid integer value to compare against")]
    FilterValue(usize),
    /// More words behind the fourth filter: the number of the first one, and the word before it.
    /// *Effect:* none.
    #[error("Detected extra data in filter, {position}th word of input, after '{after}'")]
    FilterExtra {
        /// Number of the first extra word, the command's first word being 1.
        position: usize,
        /// The last word understood.
        after: String,
    },
    /// `show table t` followed by something else than a filter, `key` or `ptr`. *Effect:* none.
    #[error(
        "Optional argument only supports \"data.<store_data_type>\" <operator> <value> or key \
         <key> or ptr <ptr>"
    )]
    ShowTableUsage,
    /// `set table` with too little or the wrong words. *Effect:* none.
    #[error(
        "Required arguments: <table> key <key> [data.<store_data_type> <value>]* or <table> ptr \
         <ptr> [data.<store_data_type> <value>]*"
    )]
    SetTableUsage,
    /// `clear table` with too little or the wrong words. *Effect:* none.
    #[error(
        "Required arguments: <table> \"data.<store_data_type>\" <operator> <value> or <table> \
         key <key> or <table> ptr <ptr>"
    )]
    ClearTableUsage,
    /// `set table t data.x eq 1`. *Effect:* none.
    #[error("content-based lookup is only supported with the \"show\" and \"clear\" actions")]
    ContentLookup,
    /// A value for a type that does not exist. *Effect:* values before it are kept, the entry is
    /// refreshed.
    #[error("Unknown data type")]
    UnknownType,
    /// A value for a type the table does not store. *Effect:* as [`CliError::UnknownType`].
    #[error("Data type not stored in this table")]
    NotStored,
    /// A value that is no number. *Effect:* as [`CliError::UnknownType`].
    #[error("Require a valid integer value to store")]
    StoreValue,
    /// Something else than `data.<type>` where a value is due. *Effect:* as
    /// [`CliError::UnknownType`].
    #[error("\"data.<type>\" followed by a value expected")]
    DataExpected,
    /// An array's index past its end. *Effect:* as [`CliError::UnknownType`].
    #[error("index out of range in this data array")]
    IndexRange,
    /// The table is full and may not evict. *Effect:* none.
    #[error("Unable to allocate a new entry")]
    TableFull,
    /// The session's level is too low. *Effect:* none.
    #[error("Permission denied")]
    PermissionDenied,
    /// `set table` or `clear table` in a process that hands its tables over: its successor would
    /// never hear of it. Ours alone, HAProxy loses it. *Effect:* none.
    #[error("This process is stopping, its tables go to the next one: connect again.")]
    Stopping,
    /// No peers section has that name. *Effect:* none.
    #[error("No such peers")]
    NoSuchPeers,
    /// No proxy has that name. *Effect:* none.
    #[error("No such proxy.")]
    NoSuchProxy,
    /// `show env` for a variable that is not set. *Effect:* none.
    #[error("Variable not found")]
    NoSuchVariable,
    /// `set timeout` for something else than `cli`. *Effect:* none.
    #[error("'set timeout' only supports 'cli'.")]
    TimeoutUsage,
    /// `set timeout cli` without a value. *Effect:* none.
    #[error("Expects an integer value.")]
    TimeoutExpected,
    /// `set timeout cli` with a value that is no time, or zero. *Effect:* none.
    #[error("Invalid timeout value.")]
    TimeoutInvalid,
    /// `set severity-output` without one of its three words. *Effect:* none.
    #[error("one of 'none', 'number', 'string' is a required argument")]
    SeverityUsage,
    /// `prompt` with an unknown word. *Effect:* none.
    #[error("{}", super::prompt::USAGE)]
    PromptUsage,
    /// `show stat domain` with an unknown word. *Effect:* none.
    #[error("Invalid statistics domain.")]
    StatDomain,
    /// `wait` without a delay. *Effect:* none.
    #[error("Expects a duration in milliseconds.")]
    WaitExpected,
    /// `wait` with a delay that is none, or zero. *Effect:* none.
    #[error("Invalid duration.")]
    WaitInvalid,
    /// `wait -h`, or with an unknown condition. *Effect:* none.
    #[error("{}", super::wait::USAGE)]
    WaitUsage,
    /// `wait <delay> srv-removable` without a server. *Effect:* none.
    #[error("Missing server name (<backend>/<server>).")]
    WaitServer,
    /// `wait <delay> srv-removable <backend>/<server>`: there is no server. *Effect:* none.
    #[error("Failed.")]
    WaitFailed,
    /// More words than a command may have. *Effect:* none.
    #[error(
        "Too many arguments. Commands must have at most {} arguments.",
        crate::limits::CLI_WORDS_MAX
    )]
    TooManyWords,
}
