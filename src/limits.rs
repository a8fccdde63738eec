//! Every bound of the node and its reason. Nothing in the code may grow without one of these.

/// HAProxy's default `tune.bufsize`: the longest hello line and the longest message we accept.
pub const BUFSIZE_DEFAULT: usize = 16_384;
/// `tune.bufsize` below this could not hold one full update of a legal table.
pub const BUFSIZE_MIN: usize = 1_024;
/// `tune.bufsize` above this would let one peer pin too much memory.
pub const BUFSIZE_MAX: usize = 16 * 1024 * 1024;
/// The length varint of a message must end within this many bytes (protocol.md 3.4).
pub const LENGTH_VARINT_MAX: usize = 5;
/// What we send stays below HAProxy's 16 379 bytes with the default bufsize (protocol.md 0, rule
/// 18).
pub const MESSAGE_SENT_MAX: usize = 15_000;
/// Slots of a dictionary cache, each direction of a session (protocol.md 4.7).
pub const DICTIONARY_SLOTS: usize = 128;
/// A server name longer than this is not taught on: HAProxy before 3.5-dev4 overflows near 16 kB.
pub const SERVER_KEY_MAX: usize = 255;
/// Elements an array type may have (protocol.md 8).
pub const ARRAY_ELEMENTS_MAX: u32 = 100;
/// Longest expiry HAProxy's configuration takes: 2^31 - 1 ms, which row ticks can still compare.
pub const EXPIRE_MAX_MS: u32 = i32::MAX as u32;

/// A peer that has confirmed nothing, and whose changes the log does not know any more, is not sent
/// the whole table before this: it is about to ask for a lesson, most likely, and would be sent
/// everything twice.
pub const CATCH_UP_WAIT_MS: u64 = 200;
/// HEARTBEAT after this long without anything to push (protocol.md 2.7).
pub const HEARTBEAT_MS: u64 = 3_000;
/// A session on which nothing was received for this long is closed (protocol.md 2.7).
pub const SILENCE_MS: u64 = 5_000;
/// Cadence of reconnection attempts (protocol.md 2.6).
pub const RECONNECT_MS: u64 = 5_000;
/// Each wait of the section's resync: for an old process, then for a remote (protocol.md 6.1).
pub const RESYNC_MS: u64 = 5_000;
/// TCP connect must succeed within this (protocol.md 2.7).
pub const CONNECT_MS: u64 = 1_000;
/// Random delay after a collision or a forced close: `50 + rand(0..=1999)` ms (protocol.md 2.7).
pub const COLLISION_DELAY_MIN_MS: u64 = 50;
/// See [`COLLISION_DELAY_MIN_MS`].
pub const COLLISION_DELAY_SPREAD_MS: u64 = 2_000;

/// A timer that notices a peer's silence this late (ms) says that we slept; the peer gets as much
/// more time, once, so that a stopped and continued node does not drop its peers.
pub const SILENCE_GRACE_MS: u64 = 500;
/// A teacher that has sent no entry for this long is found wanting, and another is asked: HAProxy
/// would wait for ever (protocol.md 6.1).
pub const LESSON_STALL_MS: u64 = 30_000;
/// Passes over received bytes that wait for the shards: beyond, the session is not read.
pub const SESSION_ROUNDS_MAX: usize = 64;
/// Bytes a session may hold that nobody has polled yet: beyond, it is not read.
pub const SESSION_OUTPUT_MAX: usize = 1024 * 1024;
/// Tables one peer may have defined in a session.
pub const SESSION_TABLES_MAX: usize = 4_096;
/// Names of refused tables reported in one session; the rest are only counted.
pub const REFUSALS_REPORTED_MAX: usize = 64;
/// Batches sent to a peer and not acked that are known one by one; older ones are merged.
pub const FLIGHT_BATCHES_MAX: usize = 1_024;
/// Acks looked for inside sent batches for each batch sent: a real peer acks every 200 updates or
/// so.
pub const ACK_SEARCHES_MAX: u32 = 64;
/// Bytes of sent batches kept to check acks against; beyond, the oldest are known by their last id
/// only.
pub const FLIGHT_BYTES_MAX: usize = 1024 * 1024;
/// A handshake must be complete within this (protocol.md 2.7).
pub const HANDSHAKE_MS: u64 = 5_000;
/// Longest wait between dials to a peer that refuses us.
pub const REFUSED_BACKOFF_MAX_MS: u64 = 60_000;
/// The old process looks for its successor this long (protocol.md 6.4).
pub const HANDOVER_MS: u64 = 5_000;
/// Wait between the old process's dials to its successor (protocol.md 2.7).
pub const HANDOVER_RETRY_MS: u64 = 500;

const _: () = assert!(MESSAGE_SENT_MAX < BUFSIZE_DEFAULT - 5);
const _: () = assert!(HEARTBEAT_MS < SILENCE_MS);
const _: () = assert!(BUFSIZE_MIN < BUFSIZE_DEFAULT && BUFSIZE_DEFAULT < BUFSIZE_MAX);

/// Messages kept about one configuration: enough for a person to work through, and a bound on what
/// a hostile or binary file can make us print.
pub const DIAGNOSTICS_MAX: usize = 1_000;
/// Messages a ring between two shards holds; more wait in the sender, bounded by credits.
pub const RING_SLOTS: usize = 1024;
/// Submission queue entries of a shard's io_uring: one read and one write a session, with room.
pub const RING_ENTRIES: u32 = 256;
/// Connections the kernel may hold for us before we accept them.
pub const LISTEN_BACKLOG: i32 = 1024;
/// Tables created from definitions: a peer must not be able to fill memory with names.
pub const AUTO_TABLES_MAX: usize = 256;
/// A session's receive buffer: large reads are what makes completion I/O cheap.
pub const READ_CHUNK: usize = 128 * 1024;
/// Up to this many bytes a tick writes by itself, without a turn of the writer's task.
pub const WRITE_NOW_MAX: usize = 16 * 1024;
/// Bytes a session's writer takes from its queue for one `writev`.
pub const WRITE_BATCH_MAX: usize = 512 * 1024;
/// Bytes queued for a peer beyond which we stop reading from it; what all shards may have on the
/// way to it comes on top, since a slow learner must still be heard.
pub const TX_QUEUE_MAX: usize = 4 * 1024 * 1024;
/// Bytes of updates in one change batch or lesson chunk.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks a shard may have on the way to one session, of each kind.
pub const CHUNK_CREDITS: u32 = 4;
/// Rows a shard expires, scans or trims for one table in one tick, so that a tick stays short.
pub const TICK_ROWS: usize = 4_096;
/// Chunks of lessons a shard encodes in one tick.
pub const TICK_CHUNKS: usize = 8;
/// How often a shard looks at tables it has not touched, for a size limit exceeded elsewhere.
pub const TRIM_EVERY_MS: u64 = 100;

const _: () = assert!(CHUNK_BYTES > MESSAGE_SENT_MAX && READ_CHUNK / 2 > BUFSIZE_DEFAULT);
/// Messages and commands a shard takes in one tick before it looks at its sockets again.
pub const TICK_MESSAGES: usize = 256;
/// Handshakes under way at once: silent connections must not use up the descriptors.
pub const HANDSHAKES_MAX: usize = 256;
/// Pause after a failed accept, and the longest a status line may take to be written.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Between attempts to listen again where another process listens meanwhile.
pub const RELISTEN_MS: u64 = 1_000;
/// Attempts to bind while old processes let go of their addresses (as many as HAProxy makes) ...
pub const BIND_TRIES: u32 = 200;
/// ... and the pause between two of them: 2 s together.
pub const BIND_PAUSE_MS: u64 = 10;
/// Silence of a process that is asked for its listening sockets (`-x`).
pub const GETSOCKS_MS: u64 = 2_000;
/// Time for every accept loop to offer its socket: they wait for nothing else.
pub const EXPOSE_MS: u64 = 10;
/// Between two looks whether the client of a `wait` is still there: it holds one of few places.
pub const WAIT_LOOK_MS: u64 = 200;
/// After the end of a process that had us pause: its last signals have arrived by then.
pub const PAUSER_GONE_MS: u64 = 100;
/// Processes that have us pause at once and are watched; there is one, or two in a reload storm.
pub const PAUSERS_MAX: usize = 16;
/// Workers of one master, those included that still hand over: more means that they do not end.
pub const WORKERS_MAX: usize = 64;
/// Bytes of a message between master and worker: what a worker says at its start; more is cut.
pub const CONTROL_MESSAGE_MAX: usize = 32 << 10;
/// Connections to the master's command line at once, as HAProxy's `stats maxconn`.
pub const MASTER_CLI_MAX: usize = 10;
/// Silence after which the master closes a connection to its command line: a worker's longest
/// pause within an answer, and an operator's coffee.
pub const MASTER_CLI_MS: u64 = 600_000;
/// Undeclared peers admitted at once, whatever the configuration says.
pub const DYNAMIC_PEERS_MAX: usize = 1_024;
/// Commands a shard may have waiting.
pub const CONTROL_SLOTS: usize = 1_024;
/// Events that may wait for the coordinator; more wait in their shards.
pub const EVENT_SLOTS: usize = 4_096;

/// A shard whose events had no room tries again after this long.
pub const EVENT_RETRY_MS: u64 = 10;
/// Told to stop, the node waits this long for peers to confirm its own changes: those who are there
/// do so at once, and those who never do must not hold a reload up.
pub const PUSH_REST_MS: u64 = 300;
/// The same for peers that confirm more and more: a successor waits 5 s for us.
pub const PUSH_REST_MAX_MS: u64 = 1_500;
/// Told to stop while an old process teaches it, the node lets that lesson end for this long.
pub const LEARN_REST_MS: u64 = 2_000;
/// How often it looks whether they have.
pub const PUSH_LOOK_MS: u64 = 5;
/// Told to stop, the node tells sessions that are still there again after this long.
pub const STOP_AGAIN_MS: u64 = 100;
/// A session that has ended has this long to write its last words: the peer may not be reading.
pub const LAST_WORDS_MS: u64 = 1_000;

/// Longest name of a table that is made from a peer's definition: one line of `show table`.
pub const TABLE_NAME_MAX: usize = 255;
/// Slices of a large table: enough to spread over 64 cores, and one's growth stays short.
pub const PARTITIONS: u32 = 64;
/// A table of at most this many entries is not cut into partitions.
pub const SINGLE_PARTITION_SIZE: u64 = 65_536;
/// Rows one shard may hold of one table: slots are 32 bits and two values are reserved.
pub const PART_ROWS_MAX: u64 = 1 << 31;
/// Longest key: with every value at its longest it still fits [`MESSAGE_SENT_MAX`], so that
/// whatever is in a table can be taught.
pub const KEY_MAX: u32 = 8_192;
/// Longer keys do not lie in the row: a table with rare long keys keeps short rows.
pub const KEY_INLINE_MAX: u32 = 32;
/// Different `server_key` texts one shard keeps for one table; beyond, values stay unset and are
/// counted. Server names are few; only a hostile peer has more.
pub const SERVER_KEYS_MAX: usize = 65_536;
/// Local changes one shard remembers for one table (4 bytes each): a peer further behind is
/// re-taught.
pub const CHANGES_MAX: usize = 1 << 20;
/// Blocks of rows one eviction looks at before it takes the best found: bounds an insert's time
/// when every row was refreshed since the last eviction.
pub const EVICT_BLOCKS_MAX: usize = 512;

const _: () = assert!(PARTITIONS.is_power_of_two());
const _: () = assert!(KEY_MAX as usize + 4_096 < MESSAGE_SENT_MAX);

/// Words of one command on the stats socket (HAProxy's own limit).
pub const CLI_WORDS_MAX: usize = 64;
/// Length of the pattern behind `<<` (runtime-api.md 3.1).
pub const CLI_PATTERN_MAX: usize = 64;
/// Payload lines are read and dropped, no command of ours takes one; more than this is abuse.
pub const CLI_PAYLOAD_MAX: usize = 128 * 1024;
/// Filters of one `show table` or `clear table` (HAProxy's own limit).
pub const CLI_FILTERS_MAX: usize = 4;
/// Silence after which a stats connection is closed: `stats timeout`'s default.
pub const CLI_TIMEOUT_DEFAULT_MS: u64 = 10_000;
/// Close commands named when one is unknown, as HAProxy does.
pub const CLI_SUGGESTIONS_MAX: usize = 5;
/// Bytes of a refused message kept for `show errors`: its beginning tells what it is.
pub const ERROR_BYTES_MAX: usize = 256;
/// Shards at most: a session's 128 dictionary ids are shared out among them, two each.
pub const SHARDS_MAX: usize = 64;
/// Time the shards have to close their sessions when the process ends.
pub const STOP_MS: u64 = 2_000;
/// Bytes read at once from a stats socket.
pub const CLI_READ: usize = 4_096;
/// Protocol errors kept for `show errors`.
pub const ERRORS_KEPT_MAX: usize = 32;
/// Log lines about peers at once, and for how many more each second makes room.
pub const LOG_BURST: u64 = 100;
/// See [`LOG_BURST`].
pub const LOG_PER_SECOND: u64 = 10;

/// Words on a line of configuration: HAProxy's own limit.
pub const CONFIG_WORDS_MAX: usize = 64;
/// Bytes of a line of configuration once its variables are expanded: far above any real line, and
/// what stops a small file from expanding without end.
pub const CONFIG_LINE_MAX: usize = 1 << 20;
/// Nested `.if` blocks in a configuration, as a bound on memory; real files nest two or three.
pub const CONFIG_IF_DEPTH_MAX: usize = 64;
/// Nested `(` and `!` in a condition, as a bound on the stack.
pub const CONFIG_CONDITION_DEPTH_MAX: usize = 100;
/// `sizeof(sun_path)` on Linux: a unix socket's path and its NUL must fit.
pub const UNIX_PATH_MAX: usize = 108;
/// Addresses one `stats socket` line may listen on (commas, port ranges): each costs a socket.
pub const BIND_ADDRESSES_MAX: usize = 64;
/// `nbthread`: HAProxy 3.2's limit; the engine never starts more shards than CPUs allow.
pub const NBTHREAD_MAX: u32 = 1_024;
/// `stats maxconn` unless set, as HAProxy's.
pub const STATS_MAXCONN_DEFAULT: u32 = 10;
/// Entries of a table created from a peer's definition, unless `auto-tables size` says otherwise.
pub const AUTO_TABLE_SIZE_DEFAULT: u64 = 1 << 20;
/// Undeclared peers accepted at once, unless `accept-peers … max` says otherwise.
pub const ACCEPT_PEERS_DEFAULT: u32 = 128;
/// Networks an `accept-peers` line may name.
pub const ACCEPT_NETWORKS_MAX: usize = 256;
/// Length of a log line unless `len` says otherwise, and its bounds: HAProxy's.
pub const LOG_LEN_DEFAULT: u32 = 1_024;
/// See [`LOG_LEN_DEFAULT`].
pub const LOG_LEN_MIN: u32 = 80;
/// See [`LOG_LEN_DEFAULT`].
pub const LOG_LEN_MAX: u32 = 65_535;
/// Bytes of all configuration files together.
pub const CONFIG_BYTES_MAX: u64 = 64 << 20;
/// Files read from `-f` and directories.
pub const CONFIG_FILES_MAX: usize = 1_024;
/// `type binary` without `len`, as HAProxy's.
pub const BINARY_KEY_DEFAULT: u32 = 32;
/// The longest tick that is told apart from longer ones, in µs.
pub const TICK_US_MAX: u64 = 60_000_000;
/// An otherwise idle shard sweeps expired rows this often.
pub const EXPIRE_EVERY_MS: u64 = 50;

/// Everything of an instant hand-over, from the first socket stopped to the successor's word: peers
/// give up after 5 s of silence, and a successor that is slower than this is in trouble.
pub const INSTANT_MS: u64 = 2_000;
/// Coming to rest within it: applying what was received takes a few ticks.
pub const INSTANT_FREEZE_MS: u64 = 1_000;
/// One read or write between two processes that hand over.
pub const HANDOVER_IO_MS: u64 = 2_000;
/// Pause of the thread that is asked, after one who may not ask or a failed accept.
pub const HANDOVER_PAUSE_MS: u64 = 20;
/// Descriptors in one message: the kernel takes 253.
pub const RIGHTS_AT_ONCE: usize = 250;
/// Descriptors of one hand-over: memory of every table on every shard, and sockets.
pub const HANDOVER_FDS_MAX: usize = 1 << 20;
/// A frame between two processes that hand over; the state itself travels in memory.
pub const HANDOVER_FRAME_MAX: usize = 16 << 20;
/// State of one hand-over: every session with what is queued for it.
pub const HANDOVER_STATE_MAX: u64 = 4 << 30;
