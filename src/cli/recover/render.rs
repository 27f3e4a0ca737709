//! A recovered table in words.

use std::fmt::Write;

use crate::plain::counted;
use crate::postgres::recover::{Comparison, LeftOut, PutBack, TableRecovery, script};

/// What was done, how rows differ, and the SQL that puts back what is missing.
pub fn in_words(report: &TableRecovery) -> String {
    let outcome = &report.outcome;
    let mut text = format!(
        "{} of {}: {} in database \"{}\" as {}\n  from: {}\n  restored: {}\n",
        counted(outcome.rows, "row"),
        report.table,
        if outcome.put_back.is_done && outcome.comparison.is_none() {
            "back"
        } else {
            "now"
        },
        report.database,
        outcome.recovered,
        report.from,
        report.way
    );
    let made = [
        (outcome.made.partitions, "partition"),
        (outcome.made.indexes, "index or key"),
        (outcome.made.sequences, "sequence"),
    ];
    let made = made.iter().filter(|(count, _)| *count > 0);
    let made: Vec<String> = made
        .map(|(count, what)| match *what {
            "index or key" if *count > 1 => format!("{count} indexes or keys"),
            what => counted(*count as u64, what),
        })
        .collect();
    if !made.is_empty() {
        let _ = writeln!(text, "  with: {}", made.join(", "));
    }
    if !outcome.also_made.is_empty() {
        let _ = writeln!(
            text,
            "  made, too, since it was gone: {}",
            outcome.also_made.join(", ")
        );
    }
    match &outcome.comparison {
        Some(comparison) => text += &compared(comparison),
        None => {
            let _ = writeln!(text, "the table {} was not there", report.table);
        }
    }
    text += &left_out(&outcome.left_out);
    for phase in &report.phases {
        let _ = writeln!(text, "  {:>9.1} s  {}", phase.seconds, phase.name);
    }
    text + &put_back(
        &outcome.put_back,
        outcome.comparison.as_ref(),
        &outcome.left_out,
    )
}

fn compared(comparison: &Comparison) -> String {
    let by = match comparison.key.is_empty() {
        true => "whole rows, since no key tells them apart".into(),
        false => format!("key ({})", comparison.key.join(", ")),
    };
    let mut text = format!("compared with the present table by {by}:\n");
    for (count, what) in [
        (Some(comparison.missing), "missing now"),
        (comparison.changed, "changed since"),
        (Some(comparison.same), "the same"),
        (Some(comparison.added), "added since"),
    ] {
        if let Some(count) = count {
            let _ = writeln!(text, "  {count:>9}  {what}");
        }
    }
    for note in &comparison.notes {
        let _ = writeln!(text, "  NOTE: {note}");
    }
    text
}

fn left_out(left: &[LeftOut]) -> String {
    if left.is_empty() {
        return String::new();
    }
    let mut text = String::from("not brought back:\n");
    for LeftOut {
        what, name, why, ..
    } in left
    {
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        let _ = writeln!(text, "  {what} {name}{why}");
    }
    text
}

fn put_back(put_back: &PutBack, comparison: Option<&Comparison>, left: &[LeftOut]) -> String {
    let mut text = match (put_back.is_done, put_back.rows, comparison) {
        (true, Some(rows), _) => format!("{} put back\n", counted(rows, "row")),
        (true, None, _) => "the table has its name back\n".into(),
        (false, _, Some(comparison)) if comparison.missing == 0 => "no row is missing\n".into(),
        (false, _, Some(comparison)) => format!(
            "to put {} back, run this or --put-back:\n{}",
            counted(comparison.missing, "missing row"),
            script(&put_back.sql)
        ),
        (false, _, None) => format!(
            "to give the table its name back, run this or --put-back:\n{}",
            script(&put_back.sql)
        ),
    };
    if let Some(sql) = &put_back.changed_sql {
        text += "to give changed rows their recovered values, look at them, then run:\n";
        text += &script(std::slice::from_ref(sql));
    }
    let again: Vec<&String> = left.iter().filter_map(|left| left.sql.as_ref()).collect();
    if !again.is_empty() {
        text += "once it has its name, what was not brought back is made by:\n";
        again.iter().for_each(|sql| {
            let _ = writeln!(text, "{sql};");
        });
    }
    text
}
