//! Measured seconds over time, placed in a drawing: for the report and for the page. Pure.

use chrono::{DateTime, Utc};

use crate::plain::lasting;

/// The height of a drawing, in pixels; its width is 100 %.
const HEIGHT: f64 = 96.0;
/// Room for a dot at each side: in pixels above and below, in hundredths of the width beside.
const EDGE: f64 = 8.0;
const SIDE: f64 = 1.5;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Dot {
    /// In hundredths of the width.
    pub x: f64,
    /// In pixels from above.
    pub y: f64,
    pub at: DateTime<Utc>,
    pub seconds: f64,
}

/// Measurements over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    pub title: &'static str,
    /// In the order of time; at least one.
    pub dots: Vec<Dot>,
    pub most: f64,
    pub last: f64,
    /// What is wanted at most, and where that lies.
    pub target: Option<(f64, f64)>,
}

impl Chart {
    /// Of values in the order of time. `None`: nothing was measured.
    pub fn new(
        title: &'static str,
        values: &[(DateTime<Utc>, f64)],
        target: Option<f64>,
    ) -> Option<Self> {
        let (first, last) = (values.first()?, values.last()?);
        let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let (top, span) = (
            most.max(target.unwrap_or_default()),
            (last.0 - first.0).as_seconds_f64(),
        );
        let height = |value: f64| {
            let part = if top > 0.0 { value / top } else { 0.0 };
            (EDGE + (HEIGHT - 2.0 * EDGE) * (1.0 - part)).round()
        };
        let dot = |(at, seconds): &(DateTime<Utc>, f64)| {
            let part = match span > 0.0 {
                true => (*at - first.0).as_seconds_f64() / span,
                false => 0.5,
            };
            Dot {
                x: ((SIDE + (100.0 - 2.0 * SIDE) * part) * 100.0).round() / 100.0,
                y: height(*seconds),
                at: *at,
                seconds: *seconds,
            }
        };
        Some(Self {
            title,
            dots: values.iter().map(dot).collect(),
            most,
            last: last.1,
            target: target.map(|target| (target, height(target))),
        })
    }

    /// The lines between dots that follow each other.
    pub fn lines(&self) -> impl Iterator<Item = (&Dot, &Dot)> {
        self.dots.iter().zip(self.dots.iter().skip(1))
    }

    /// What it shows, in words.
    pub fn said(&self) -> String {
        let target = match self.target {
            Some((target, _)) => format!(", wanted at most {}", lasting(target)),
            None => String::new(),
        };
        let (last, most) = (lasting(self.last), lasting(self.most));
        format!("last {last}, at most {most}{target}")
    }

    /// From when to when it goes; one moment where that is all.
    pub fn ends(&self) -> Vec<String> {
        let ends = self.dots.first().into_iter().chain(self.dots.last());
        let mut ends: Vec<String> = ends.map(|dot| moment(dot.at)).collect();
        ends.dedup();
        ends
    }

    /// The height of the drawing.
    pub fn height(&self) -> f64 {
        HEIGHT
    }

    /// Where nothing lies.
    pub fn floor(&self) -> f64 {
        HEIGHT - EDGE
    }
}

impl Dot {
    /// What it shows, in words.
    pub fn said(&self) -> String {
        format!("{}: {}", moment(self.at), lasting(self.seconds))
    }
}

fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_chart_spans_its_drawing_and_has_its_target_in_it() {
        let at = |day: i64, value: f64| (DateTime::UNIX_EPOCH + TimeDelta::days(day), value);
        let places = |chart: &Chart| -> Vec<(f64, f64)> {
            chart.dots.iter().map(|dot| (dot.x, dot.y)).collect()
        };
        let drawn = Chart::new("x", &[at(0, 0.0), at(1, 4.0), at(4, 2.0)], None).unwrap();
        assert_eq!(places(&drawn), [(1.5, 88.0), (25.75, 8.0), (98.5, 48.0)]);
        assert_eq!(
            (drawn.most, drawn.last, drawn.lines().count()),
            (4.0, 2.0, 2)
        );
        let one = Chart::new("x", &[at(1, 0.0)], Some(8.0)).unwrap();
        assert_eq!(
            (places(&one), one.target),
            (vec![(50.0, 88.0)], Some((8.0, 8.0)))
        );
        assert_eq!(one.said(), "last 0 s, at most 0 s, wanted at most 8 s");
        assert_eq!((drawn.ends().len(), one.ends().len()), (2, 1));
        assert_eq!(Chart::new("x", &[], Some(1.0)), None);
    }
}
