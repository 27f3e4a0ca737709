//! Connection strings: `keyword=value …` and `postgresql://…`, as libpq reads them (fe-connect.c, conninfo_parse and
//! conninfo_uri_parse). Error texts never repeat what may be part of a password.

use anyhow::{Result, anyhow, bail};
use std::iter::Peekable;
use std::str::CharIndices;

use super::keywords::{self, Values};
use crate::error::Hint;

/// Reads a connection string of either form. The empty string says nothing, so that everything comes from elsewhere.
pub(super) fn connection_string(text: &str) -> Result<Values> {
    match text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"))
    {
        Some(rest) => uri(rest),
        None => pairs(text),
    }
}

/// Reads `host=/tmp port=5432 password='a b\'c'`.
fn pairs(text: &str) -> Result<Values> {
    let mut values = Values::new();
    let mut chars = text.char_indices().peekable();
    let mut after_password = false;
    loop {
        skip_blanks(&mut chars);
        let Some(&(start, _)) = chars.peek() else {
            return Ok(values);
        };
        while chars
            .next_if(|(_, c)| *c != '=' && !c.is_ascii_whitespace())
            .is_some()
        {}
        let name = &text[start..chars.peek().map_or(text.len(), |(at, _)| *at)];
        skip_blanks(&mut chars);
        let equals = chars.next_if(|(_, c)| *c == '=').is_some();
        let keyword = keywords::known(name);
        if after_password && (!equals || keyword.is_none()) {
            return Err(anyhow!("the text after \"password\" is not a \"keyword=value\" pair"))
                .hint("put a password with blanks in single quotes, with \\' for a quote and \\\\ for a backslash");
        }
        if !equals {
            return Err(anyhow!("missing \"=\" after \"{name}\" in the connection string"))
                .hint("write \"keyword=value\" pairs, values with blanks in single quotes, or a postgresql:// URI");
        }
        let Some(keyword) = keyword else {
            return keywords::unknown(name);
        };
        skip_blanks(&mut chars);
        let value = value(&mut chars)
            .ok_or_else(|| anyhow!("unterminated quoted value for \"{keyword}\""))?;
        after_password = keyword == "password";
        values.insert(keyword, value);
    }
}

fn skip_blanks(chars: &mut Peekable<CharIndices<'_>>) {
    while chars.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
}

/// A value: in single quotes, or up to the next blank; a backslash takes the next character as it is.
fn value(chars: &mut Peekable<CharIndices<'_>>) -> Option<String> {
    let quoted = chars.next_if(|(_, c)| *c == '\'').is_some();
    let mut value = String::new();
    loop {
        match chars.next_if(|(_, c)| quoted || !c.is_ascii_whitespace()) {
            None if quoted => return None,
            None => return Some(value),
            Some((_, '\'')) if quoted => return Some(value),
            Some((_, '\\')) => value.extend(chars.next().map(|(_, c)| c)),
            Some((_, c)) => value.push(c),
        }
    }
}

/// Reads what follows `postgresql://`: `[user[:password]@][host[:port][,…]][/dbname][?keyword=value[&…]]`.
fn uri(text: &str) -> Result<Values> {
    let mut values = Values::new();
    let (credentials, rest) = match text.find(['@', '/']) {
        Some(at) if text[at..].starts_with('@') => (&text[..at], &text[at + 1..]),
        _ => ("", text),
    };
    let (main, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, dbname) = main.split_once('/').unwrap_or((main, ""));
    if hosts.contains('@') {
        return Err(anyhow!(
            "the connection URI has more than one \"@\" before its host"
        ))
        .hint("in a password write @ as %40, / as %2F, : as %3A and % as %25");
    }
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    for (keyword, part) in [("user", user), ("password", password), ("dbname", dbname)] {
        if !part.is_empty() {
            let part = decoded(part).ok_or_else(|| {
                anyhow!("the connection URI's {keyword} has a \"%\" that is not followed by two hexadecimal digits")
            })?;
            values.insert(keyword, part);
        }
    }
    uri_hosts(hosts, &mut values)?;
    uri_parameters(query, &mut values)?;
    Ok(values)
}

/// Reads `host[:port],[::1]:port,…` into the comma lists of the keyword form.
fn uri_hosts(text: &str, values: &mut Values) -> Result<()> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for part in text.split(',') {
        let (host, port) = match part.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest
                    .split_once(']')
                    .ok_or_else(|| anyhow!("missing \"]\" in the connection URI"))?;
                let port = match after.strip_prefix(':') {
                    Some(port) => port,
                    None if after.is_empty() => "",
                    None => bail!("unexpected text after the \"]\" in the connection URI"),
                };
                (address, port)
            }
            None => part.split_once(':').unwrap_or((part, "")),
        };
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(anyhow!("the port in the connection URI is not a number")).hint(
                "if that is part of the password, write : as %3A, / as %2F and @ as %40 there",
            );
        }
        let host = decoded(host)
            .ok_or_else(|| anyhow!("wrong percent-encoding of a host in the connection URI"))?;
        hosts.push(host);
        ports.push(port.to_owned());
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        values.insert("host", hosts.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        values.insert("port", ports.join(","));
    }
    Ok(())
}

fn uri_parameters(text: &str, values: &mut Values) -> Result<()> {
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| anyhow!("a parameter of the connection URI has no \"=\""))?;
        let name =
            decoded(name).ok_or_else(|| anyhow!("wrong percent-encoding in a parameter's name"))?;
        let value = decoded(value)
            .ok_or_else(|| anyhow!("wrong percent-encoding in the parameter \"{name}\""))?;
        // JDBC's spelling, which libpq takes too.
        if name == "ssl" && value == "true" {
            values.insert("sslmode", "require".to_owned());
            continue;
        }
        let Some(keyword) = keywords::known(&name) else {
            return keywords::unknown(&name);
        };
        values.insert(keyword, value);
    }
    Ok(())
}

/// Percent-decoding; `None` for anything but two hexadecimal digits after `%`, for `%00` and for what is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        let code = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        bytes.push(Some(code).filter(|code| *code != 0)?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}
