//! YAML as manifests need it: maps, lists and scalars of JSON, in block style.

use serde_json::Value;

/// A value as a YAML document.
pub(crate) fn print(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&" ".repeat(indent));
                out.push_str(&scalar(key));
                out.push(':');
                under(value, indent, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                let mut item = String::new();
                block(value, indent + 2, &mut item);
                // The dash takes the place of the first two blanks.
                out.push_str(&" ".repeat(indent));
                out.push_str("- ");
                out.push_str(item.get(indent + 2..).unwrap_or_default());
            }
        }
        plain => {
            out.push_str(&" ".repeat(indent));
            out.push_str(&leaf(plain));
            out.push('\n');
        }
    }
}

fn under(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        plain => {
            out.push(' ');
            out.push_str(&leaf(plain));
            out.push('\n');
        }
    }
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        // An empty map, an empty list, a number, a flag or null: JSON is YAML.
        other => other.to_string(),
    }
}

/// A text without quotes where nothing can be mistaken for anything else.
fn scalar(text: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || "_-./$".contains(c);
    let word =
        ["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$');
    if begins && !word && text.chars().all(simple) { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_printed_in_blocks() {
        let value = json!({
            "kind": "LogIndex", "v": "1.0", "on": "on", "text": "a: \"b\"", "empty": {}, "none": [], "n": -3,
            "list": ["a", {"x": 1, "y": ["b"]}, [1, 2]],
        });
        let text = print(&value);
        for line in [
            "kind: LogIndex\n",
            "v: \"1.0\"\n",
            "\"on\": \"on\"\n",
            "text: \"a: \\\"b\\\"\"\n",
            "empty: {}\n",
            "none: []\n",
            "\"n\": -3\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.contains("list:\n  - a\n  - x: 1\n    \"y\":\n      - b\n  - - 1\n    - 2\n"), "{text}");
    }
}
