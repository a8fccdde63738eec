//! `show stat [typed|json|desc|up|no-maint] [domain proxy|resolvers] [<iid> <type> <sid>]`.
//!
//! HAProxy lists its proxies; peers sections are none. But tools that poll this choke on an empty
//! body, so every peers listener is a FRONTEND row of mode `peers` (ours alone). Rule: HAProxy
//! 3.2's columns at HAProxy 3.2's positions, the static ones, ended by the `-` column.

use super::error::CliError;
use super::json::write_string;
use std::fmt::Write;

/// A parsed `show stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShowStat {
    /// What is printed.
    pub format: StatFormat,
    /// Only this proxy; -1 or absent for all.
    pub iid: Option<i64>,
    /// Kinds of rows: bit 1 frontends, 2 backends, 4 servers; -1 for all.
    pub kinds: i64,
    /// `domain resolvers`: a peers node has none, the header says so.
    pub resolvers: bool,
}

/// The forms of `show stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatFormat {
    /// Comma separated values.
    #[default]
    Csv,
    /// A line for each value.
    Typed,
    /// One JSON array.
    Json,
}

/// A peers listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerView {
    /// The peers section.
    pub section: String,
    /// Number of the section, from 1.
    pub iid: u32,
    /// Sessions now, most at once, limit, ever.
    pub sessions: [u64; 4],
    /// Bytes received and sent.
    pub bytes: [u64; 2],
    /// Connections refused.
    pub refused: u64,
    /// New sessions in the last second, and most in a second.
    pub rate: [u64; 2],
    /// `STOP` instead of `OPEN`.
    pub stopped: bool,
}

const HEADER: &str = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,\
eresp,wretr,wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,\
throttle,lbtot,tracked,type,rate,rate_lim,rate_max,check_status,check_code,check_duration,\
hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,\
cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,\
ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,\
check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,\
conn_tot,intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,\
qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,\
need_conn_est,uweight,agg_server_status,agg_server_check_status,agg_check_status,srid,sess_other,\
h1sess,h2sess,h3sess,req_other,h1req,h2req,h3req,proto,-,";
const RESOLVERS: &str = "# id,pid,sent,send_error,valid,update,cname,cname_error,any_err,nx,\
timeout,refused,other,invalid,too_big,truncated,outdated,\n";
/// Bit of [`ShowStat::kinds`] for frontends.
const FRONTENDS: i64 = 1;

/// Parses the words behind `show stat`. Words it does not know mean nothing, as with HAProxy.
pub(super) fn parse(words: &[Vec<u8>]) -> Result<ShowStat, CliError> {
    let mut query = ShowStat { kinds: -1, ..ShowStat::default() };
    let mut rest = words;
    if let [domain, tail @ ..] = rest
        && domain == b"domain"
    {
        query.resolvers = match tail.first().map(Vec::as_slice) {
            Some(b"proxy") => false,
            Some(b"resolvers") => true,
            _ => return Err(CliError::StatDomain),
        };
        rest = &tail[1..];
    }
    if let [iid, kinds, _sid, tail @ ..] = rest
        && !iid.first().is_some_and(u8::is_ascii_alphabetic)
    {
        query.iid = Some(number(iid)).filter(|&n| n >= 0);
        query.kinds = number(kinds);
        rest = tail;
    }
    for word in rest {
        match word.as_slice() {
            b"typed" => query.format = StatFormat::Typed,
            b"json" => query.format = StatFormat::Json,
            _ => {}
        }
    }
    Ok(query)
}

fn number(word: &[u8]) -> i64 {
    super::column::integer(word).unwrap_or(0)
}

/// A value of a row.
enum Value<'a> {
    Text(&'a str),
    U32(u64),
    U64(u64),
}

/// Name, its four tag letters as `typed` shows three of, and value.
type Field<'a> = (&'static str, &'static str, Value<'a>);

fn fields(l: &ListenerView) -> Vec<Field<'_>> {
    use Value::*;
    let status = if l.stopped { "STOP" } else { "OPEN" };
    vec![
        ("pxname", "KNS", Text(&l.section)),
        ("svname", "KNS", Text("FRONTEND")),
        ("scur", "MGP", U32(l.sessions[0])),
        ("smax", "MMP", U32(l.sessions[1])),
        ("slim", "CLP", U32(l.sessions[2])),
        ("stot", "MCP", U64(l.sessions[3])),
        ("bin", "MCP", U64(l.bytes[0])),
        ("bout", "MCP", U64(l.bytes[1])),
        ("dreq", "MCP", U64(0)),
        ("dresp", "MCP", U64(0)),
        ("ereq", "MCP", U64(l.refused)),
        ("status", "SGP", Text(status)),
        ("pid", "KGP", U32(1)),
        ("iid", "KGS", U32(u64::from(l.iid))),
        ("sid", "KGS", U32(0)),
        ("type", "CGS", U32(0)),
        ("rate", "MRP", U32(l.rate[0])),
        ("rate_lim", "CLP", U32(0)),
        ("rate_max", "MMP", U32(l.rate[1])),
        ("mode", "CGS", Text("peers")),
        ("conn_rate", "MRP", U32(l.rate[0])),
        ("conn_rate_max", "MMP", U32(l.rate[1])),
        ("conn_tot", "MCP", U64(l.sessions[3])),
    ]
}

fn columns() -> impl Iterator<Item = &'static str> {
    HEADER.trim_start_matches("# ").trim_end_matches(',').split(',')
}

/// Appends the reply.
pub fn write(query: &ShowStat, listeners: &[ListenerView], out: &mut String) {
    if query.resolvers {
        out.push_str(RESOLVERS);
        return;
    }
    let wanted = |l: &&ListenerView| {
        query.kinds & FRONTENDS != 0 && query.iid.is_none_or(|iid| iid == i64::from(l.iid))
    };
    let shown: Vec<_> = listeners.iter().filter(wanted).collect();
    // Writing to a String cannot fail.
    let _ = match query.format {
        StatFormat::Csv => csv(&shown, out),
        StatFormat::Typed => typed(&shown, out),
        StatFormat::Json => json(&shown, out),
    };
}

fn csv(shown: &[&ListenerView], out: &mut String) -> std::fmt::Result {
    writeln!(out, "{HEADER}")?;
    for l in shown {
        let fields = fields(l);
        for column in columns() {
            match fields.iter().find(|f| f.0 == column) {
                Some((_, _, Value::Text(text))) => csv_text(text, out),
                Some((_, _, Value::U32(n) | Value::U64(n))) => write!(out, "{n}")?,
                None if column == "-" => out.push('-'),
                None => {}
            }
            out.push(',');
        }
        out.push('\n');
    }
    Ok(())
}

/// Quoted only when it must be.
fn csv_text(text: &str, out: &mut String) {
    if text.contains([',', '"', '\n', '\r', ' ']) {
        let _ = write!(out, "\"{}\"", text.replace('"', "\"\""));
    } else {
        out.push_str(text);
    }
}

fn typed(shown: &[&ListenerView], out: &mut String) -> std::fmt::Result {
    for l in shown {
        let fields = fields(l);
        for (at, column) in columns().enumerate() {
            let Some((name, tags, value)) = fields.iter().find(|f| f.0 == column) else {
                continue;
            };
            write!(out, "F.{}.0.{at}.{name}.1:{tags}:", l.iid)?;
            match value {
                Value::Text(text) => writeln!(out, "str:{text}")?,
                Value::U32(n) => writeln!(out, "u32:{n}")?,
                Value::U64(n) => writeln!(out, "u64:{n}")?,
            }
        }
    }
    Ok(())
}

fn json(shown: &[&ListenerView], out: &mut String) -> std::fmt::Result {
    out.push('[');
    for (n, l) in shown.iter().enumerate() {
        out.push_str(if n == 0 { "[" } else { ",[" });
        let fields = fields(l);
        let mut first = true;
        for (at, column) in columns().enumerate() {
            let Some((name, tags, value)) = fields.iter().find(|f| f.0 == column) else {
                continue;
            };
            out.push_str(if first { "" } else { "," });
            first = false;
            let tags = super::show_info::tags_json(tags);
            write!(
                out,
                "{{\"objType\":\"Frontend\",\"proxyId\":{},\"id\":0,\"field\":{{\"pos\":{at},\
                 \"name\":\"{name}\"}},\"processNum\":1,\"tags\":{tags},\"value\":",
                l.iid
            )?;
            match value {
                Value::Text(text) => {
                    out.push_str("{\"type\":\"str\",\"value\":");
                    write_string(text.as_bytes(), out);
                }
                Value::U32(n) => write!(out, "{{\"type\":\"u32\",\"value\":{n}")?,
                Value::U64(n) => write!(out, "{{\"type\":\"u64\",\"value\":{n}")?,
            }
            out.push_str("}}");
        }
        out.push(']');
    }
    out.push_str("]\n");
    Ok(())
}
