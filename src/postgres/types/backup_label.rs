use super::{Lsn, ParseError, TimelineId};

/// What Walden reads of `backup_label`, the file that tells a restored server where replay begins (xlogbackup.c).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// The checkpoint's redo pointer.
    pub start_lsn: Lsn,
    pub checkpoint_lsn: Lsn,
    pub start_timeline: TimelineId,
    /// Taken from a standby.
    pub from_standby: bool,
    pub label: String,
    /// An incremental backup: a server refuses to start from it.
    pub incremental: bool,
}

impl BackupLabel {
    /// Reads the file's content. Unknown lines are skipped, missing ones are an error.
    pub fn parse(content: &str) -> Result<Self, ParseError> {
        let wrong = |line: &str, why: &str| ParseError::new("backup_label", line, why);
        let item = |name: &str| {
            let found = content
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.ok_or_else(|| wrong(name, "the line is missing"))
        };
        let lsn = |text: &str| {
            let digits = text.split(' ').next().unwrap_or_default();
            digits
                .parse()
                .map_err(|_| wrong(text, "no LSN in the line"))
        };
        let timeline = item("START TIMELINE")?;
        Ok(Self {
            start_lsn: lsn(item("START WAL LOCATION")?)?,
            checkpoint_lsn: lsn(item("CHECKPOINT LOCATION")?)?,
            start_timeline: TimelineId(
                timeline
                    .parse()
                    .map_err(|_| wrong(timeline, "not a timeline's number"))?,
            ),
            from_standby: item("BACKUP FROM")? == "standby",
            label: item("LABEL")?.to_string(),
            incremental: item("INCREMENTAL FROM LSN").is_ok(),
        })
    }
}

/// `tablespace_map`: where each tablespace lies. It wins over the links in `pg_tblspc` (xlogrecovery.c,
/// read_tablespace_map).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TablespaceMap(pub Vec<(u32, String)>);

impl TablespaceMap {
    /// Reads the file's content: `<oid> <path>` a line, with `\` before a newline, carriage return or `\` in a path.
    pub fn parse(content: &str) -> Result<Self, ParseError> {
        let mut entries = Vec::new();
        let mut line = String::new();
        let mut characters = content.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => line.extend(characters.next()),
                '\n' | '\r' => Self::push(&mut entries, &std::mem::take(&mut line))?,
                other => line.push(other),
            }
        }
        Self::push(&mut entries, &line)?;
        Ok(Self(entries))
    }

    fn push(entries: &mut Vec<(u32, String)>, line: &str) -> Result<(), ParseError> {
        if line.is_empty() {
            return Ok(());
        }
        let parsed = line
            .split_once(' ')
            .and_then(|(oid, path)| Some((oid.parse().ok()?, path.to_string())));
        entries.push(parsed.ok_or_else(|| {
            ParseError::new("tablespace_map line", line, "expected an OID and a path")
        })?);
        Ok(())
    }

    /// The file's content.
    pub fn render(&self) -> String {
        let escape = |path: &str| {
            path.replace('\\', "\\\\")
                .replace('\n', "\\\n")
                .replace('\r', "\\\r")
        };
        self.0
            .iter()
            .map(|(oid, path)| format!("{oid} {}\n", escape(path)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
        BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-01 00:00:00 UTC\nLABEL: a: b\nSTART TIMELINE: 1\n";

    #[test]
    fn the_label_gives_start_and_timeline() {
        let label = BackupLabel::parse(LABEL).unwrap();
        assert_eq!(
            (
                label.start_lsn.0,
                label.start_timeline.0,
                label.from_standby
            ),
            (0x2000028, 1, false)
        );
        assert_eq!((label.label.as_str(), label.incremental), ("a: b", false));
        assert!(BackupLabel::parse(&LABEL.replace("START TIMELINE", "X")).is_err());
    }

    #[test]
    fn a_tablespace_map_survives_hostile_paths() {
        let map = TablespaceMap(vec![(16384, "/a b".into()), (16385, "/x\\y\nz\r".into())]);
        assert_eq!(TablespaceMap::parse(&map.render()).unwrap(), map);
        assert!(TablespaceMap::parse("nonsense\n").is_err());
    }
}
