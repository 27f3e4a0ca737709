//! Settings of SQL sessions, whatever server, database or role set otherwise.

/// Values as text are the same on every server, and nothing but the system's own names is found without a schema.
pub const SAME_TEXT: [(&str, &str); 9] = [
    ("search_path", ""),
    ("DateStyle", "ISO,MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("row_security", "off"),
];

/// As a connection takes them.
pub fn options(settings: &[&[(&str, &str)]]) -> String {
    let settings = settings.iter().copied().flatten();
    let words: Vec<String> = settings
        .map(|(name, value)| format!("-c {name}={value}"))
        .collect();
    words.join(" ")
}
