//! A text with `{{field}}` in it, and what it becomes. Pure.

/// The parts of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

/// How what is filled in is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// As within the quotes of a JSON string.
    Json,
    /// As it is.
    None,
}

impl Template {
    /// Reads a text. Errors: a field that is none of `fields`, or without an end.
    pub fn parse(text: &str, fields: &[&str]) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once("{{") {
            let (field, after) = behind
                .split_once("}}")
                .ok_or_else(|| format!("\"{{{{\" without \"}}}}\" behind \"{before}\""))?;
            let field = field.trim();
            if !fields.contains(&field) {
                return Err(format!(
                    "there is no field \"{field}\": it is one of {}",
                    fields.join(", ")
                ));
            }
            parts.extend([Part::Text(before.into()), Part::Field(field.into())]);
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        Ok(Self(parts))
    }

    /// The text with all fields filled in.
    pub fn fill(&self, escape: Escape, value: impl Fn(&str) -> String) -> String {
        let part = |part: &Part| match (part, escape) {
            (Part::Text(text), _) => text.clone(),
            (Part::Field(field), Escape::None) => value(field),
            (Part::Field(field), Escape::Json) => {
                let quoted = serde_json::Value::from(value(field)).to_string();
                quoted[1..quoted.len() - 1].to_string()
            }
        };
        self.0.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_filled_in_so_that_json_stays_json() {
        let template = Template::parse("{\"a\": \"{{ what }}!\"}", &["what"]).unwrap();
        let odd = "\"quoted\"\n\\ {{what}}";
        let filled = template.fill(Escape::Json, |_| odd.into());
        let read: serde_json::Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(read["a"], format!("{odd}!"));
        let template = Template::parse("{{what}}{{what}}", &["what"]).unwrap();
        assert_eq!(template.fill(Escape::None, |_| "\"".into()), "\"\"");
    }

    #[test]
    fn a_field_that_there_is_not_is_refused() {
        for wrong in ["{{whta}}", "{{what", "{{}}"] {
            assert!(Template::parse(wrong, &["what"]).is_err(), "{wrong}");
        }
        assert!(Template::parse("{ }} {what}", &["what"]).is_ok());
    }
}
