//! What the page is asked to show: all of its state is in its address, so that every view can be linked to. Pure, but that
//! moments may be so long ago.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::axis::Span;
use crate::postgres::catalog::{
    EventKind, Filter, ParsedRequest, RequestText, RestoreRequest, Target, TimelineChoice,
    parse_time,
};
use crate::postgres::wal::Timestamp;

/// Events shown at once: the latest.
const EVENTS: usize = 200;

/// The query of the page's address. What a form leaves empty is as if it were not there, what is not known is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct PageQuery {
    /// The range of the time line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// What the target is named by: a word of [`BY`]. Empty: there is no target.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exclusive: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timeline: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backup: String,
    /// Which events.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub relation: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub min_rows: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub all: String,
}

/// What a target is named by: the word in the address, and in the form.
pub const BY: [(&str, &str); 8] = [
    ("time", "a time"),
    ("lsn", "an LSN"),
    ("xid", "a transaction"),
    ("name", "a restore point"),
    ("before", "before an event"),
    ("after", "after an event"),
    ("latest", "the end of the archive"),
    ("immediate", "the end of a backup"),
];

impl PageQuery {
    /// Reads it. Errors: it cannot be decoded, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_urlencoded::from_str(text)
            .map_err(|error| format!("the address cannot be read: {error}"))
    }

    /// The address that shows this.
    pub fn address(&self) -> String {
        // Strings can always be encoded.
        match serde_urlencoded::to_string(self).unwrap_or_default() {
            query if query.is_empty() => "/".into(),
            query => format!("/?{query}"),
        }
    }

    /// The same with another range of the time line.
    pub fn at(&self, span: &Span) -> Self {
        let text = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        Self {
            from: text(span.from),
            until: text(span.until),
            ..self.clone()
        }
    }

    /// The same with another target.
    pub fn to(&self, request: &RestoreRequest) -> Self {
        let (by, value) = match &request.target {
            Target::Time(time) => ("time", time.format("%Y-%m-%d %H:%M:%S%.6fZ").to_string()),
            Target::Lsn(lsn) => ("lsn", lsn.to_string()),
            Target::Xid(xid) => ("xid", xid.to_string()),
            Target::Name(name) => ("name", name.clone()),
            Target::Event(event) if request.inclusive => ("after", event.id.clone()),
            Target::Event(event) => ("before", event.id.clone()),
            Target::Immediate => ("immediate", String::new()),
            Target::Latest => ("latest", String::new()),
        };
        let exclusive = !request.inclusive && !matches!(request.target, Target::Event(_));
        let timeline = match request.timeline {
            TimelineChoice::Latest => String::new(),
            other => other.to_string(),
        };
        let backup = request
            .backup
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let exclusive = if exclusive {
            "on".into()
        } else {
            String::new()
        };
        Self {
            by: by.into(),
            value,
            exclusive,
            timeline,
            backup,
            ..self.clone()
        }
    }

    /// The same with a target by its words alone.
    pub fn to_words(&self, by: &str, value: &str) -> Self {
        let (by, value) = (by.to_string(), value.to_string());
        let (exclusive, timeline, backup) = Default::default();
        Self {
            by,
            value,
            exclusive,
            timeline,
            backup,
            ..self.clone()
        }
    }

    /// The range of the time line; `None`: all of it. Errors: a moment that is none, in words.
    pub fn span(&self) -> Result<Option<Span>, String> {
        let moment = |text: &str| {
            parse_time(text, Utc::now())
                .map(|(time, _)| time)
                .map_err(|error| error.to_string())
        };
        match (self.from.as_str(), self.until.as_str()) {
            ("", "") => Ok(None),
            (from, until) if !from.is_empty() && !until.is_empty() => {
                Ok(Some(Span::between(moment(from)?, moment(until)?)))
            }
            _ => Err("the time line needs both from and until".into()),
        }
    }

    /// Which events are shown. Errors: a kind or number that is none, in words.
    pub fn filter(&self, span: Option<&Span>) -> Result<Filter, String> {
        let kinds = self
            .kind
            .split(',')
            .filter(|kind| !kind.is_empty())
            .map(str::parse::<EventKind>);
        let min_rows = match self.min_rows.trim() {
            "" => None,
            number => Some(
                number
                    .parse()
                    .map_err(|_| format!("\"{number}\" is not a number of rows"))?,
            ),
        };
        Ok(Filter {
            relation: Some(self.relation.trim().to_string()).filter(|name| !name.is_empty()),
            kinds: kinds
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string())?,
            min_rows,
            since: span.map(|span| Timestamp::from(span.from)),
            until: span.map(|span| Timestamp::from(span.until)),
            all: !self.all.is_empty(),
            latest: Some(EVENTS),
        })
    }

    /// Whether only some events are shown.
    pub fn is_filtered(&self) -> bool {
        [&self.relation, &self.kind, &self.min_rows]
            .iter()
            .any(|value| !value.is_empty())
    }

    /// The target; `None`: there is none. Errors: it cannot be read, in words.
    pub fn asked(&self) -> Result<Option<ParsedRequest>, String> {
        let by = self.by.as_str();
        if by.is_empty() {
            return Ok(None);
        }
        let given = |text: &str| Some(text.trim().to_string()).filter(|text| !text.is_empty());
        let (timeline, backup) = (given(&self.timeline), given(&self.backup));
        // The box stays ticked when another target is chosen.
        let exclusive = !self.exclusive.is_empty() && matches!(by, "time" | "lsn" | "xid");
        let words = RequestText {
            exclusive,
            timeline: timeline.as_deref(),
            backup: backup.as_deref(),
        };
        let asked = ParsedRequest::read(&[(by, Some(self.value.trim()))], words, Utc::now());
        asked.map(Some).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::NamedTarget;
    use crate::postgres::types::TimelineId;

    fn query(text: &str) -> PageQuery {
        PageQuery::read(text).unwrap()
    }

    #[test]
    fn an_address_reads_back() {
        for text in [
            "",
            "by=time&value=2026-01-31+03%3A00%3A00&exclusive=on",
            "relation=a%26b%3C%2F%3E%C3%A4&kind=drop",
        ] {
            let shown = query(text);
            let address = shown.address();
            assert_eq!(
                query(address.trim_start_matches("/").trim_start_matches('?')),
                shown,
                "{address}"
            );
        }
        assert_eq!(query("by=&value=&from=&unknown=1").address(), "/");
        assert!(PageQuery::read("by=time&by=lsn").is_err());
    }

    #[test]
    fn every_request_has_an_address_that_asks_for_it() {
        let requests = [
            Target::Time("2026-01-31T03:00:00.000001Z".parse().unwrap()),
            Target::Lsn("16/B374D848".parse().unwrap()),
            Target::Xid(745),
            Target::Name("before it's gone & <b>".into()),
            Target::Immediate,
            Target::Latest,
        ];
        for target in requests {
            let takes_exclusive =
                matches!(target, Target::Time(_) | Target::Lsn(_) | Target::Xid(_));
            for inclusive in [true, !takes_exclusive] {
                let timeline = TimelineChoice::Number(TimelineId(2));
                let backup = Some("20260101-000000Z".parse().unwrap());
                let request = RestoreRequest {
                    target: target.clone(),
                    inclusive,
                    timeline,
                    backup,
                };
                let shown = query("kind=drop").to(&request);
                let asked = shown.asked().unwrap().unwrap();
                assert_eq!(
                    asked.named,
                    NamedTarget::Target(target.clone()),
                    "{shown:?}"
                );
                assert_eq!(asked.request(target.clone()), request, "{shown:?}");
                assert_eq!(shown.kind, "drop");
            }
        }
        let event = query("").to_words("before", "1-0-3000158-d16384");
        let event = event.asked().unwrap().unwrap();
        assert!(matches!(event.named, NamedTarget::Event(_)) && !event.inclusive);
    }

    #[test]
    fn what_is_no_target_is_told_and_nothing_is_none() {
        assert_eq!(query("value=7").asked(), Ok(None));
        for text in [
            "by=time&value=yesterday",
            "by=time",
            "by=lsn&value=1",
            "by=xid&value=2",
            "by=xid&value=4294967296",
            "by=name",
            "by=before&value=nothing",
            "by=nonsense&value=1",
            "by=latest&timeline=0",
            "by=latest&backup=../x",
        ] {
            assert!(query(text).asked().is_err(), "{text}");
        }
        for text in ["kind=nonsense", "min_rows=many"] {
            assert!(query(text).filter(None).is_err(), "{text}");
        }
        for text in ["from=2026-01-31T03:00:00Z", "from=x&until=y"] {
            assert!(query(text).span().is_err(), "{text}");
        }
        assert_eq!(query("").span(), Ok(None));
    }
}
