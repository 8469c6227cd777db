use serde_json::json;

use super::*;

/// 2026-01-02T03:04:05Z
const NOW: i64 = 1_767_323_045_000;

fn shown(extent: Extent) -> String {
    format!("{} {}", iso(extent.start), extent.end - extent.start)
}

#[test]
fn instants_and_how_long_they_are() {
    let day = 86_400_000_000_000_i64;
    for (text, format, zone, expected) in [
        (json!(NOW), None, "UTC", "2026-01-02T03:04:05.000Z 1000000".to_owned()),
        (json!("1767323045000"), Some("epoch_millis"), "UTC", "2026-01-02T03:04:05.000Z 1000000".to_owned()),
        (json!(1_767_323_045), Some("epoch_second"), "UTC", "2026-01-02T03:04:05.000Z 1000000".to_owned()),
        (json!("2026"), Some("strict_date_optional_time"), "UTC", format!("2026-01-01T00:00:00.000Z {}", 365 * day)),
        (json!("2026-02"), None, "UTC", format!("2026-02-01T00:00:00.000Z {}", 28 * day)),
        (json!("2026-01-02"), None, "+01:00", format!("2026-01-01T23:00:00.000Z {day}")),
        (json!("2026-01-02T03"), None, "UTC", "2026-01-02T03:00:00.000Z 3600000000000".to_owned()),
        (json!("2026-01-02T03:04:05Z"), None, "+01:00", "2026-01-02T03:04:05.000Z 1000000000".to_owned()),
        (json!("2026-01-02T03:04:05.25+0100"), None, "UTC", "2026-01-02T02:04:05.250Z 1000000".to_owned()),
        (json!("2026-01-02T03:04:05.123456789Z"), None, "UTC", "2026-01-02T03:04:05.123Z 1".to_owned()),
        (json!("02/01/2026 03:04"), Some("dd/MM/yyyy HH:mm"), "UTC", "2026-01-02T03:04:00.000Z 60000000000".to_owned()),
        (json!("now"), None, "UTC", "2026-01-02T03:04:05.000Z 1000000".to_owned()),
        (json!("now-15m/m"), None, "UTC", "2026-01-02T02:49:00.000Z 60000000000".to_owned()),
        (json!("now/d"), None, "+05:00", format!("2026-01-01T19:00:00.000Z {day}")),
        (json!("now/w"), None, "UTC", format!("2025-12-29T00:00:00.000Z {}", 7 * day)),
        (json!("2026-01-31||+1M/M"), None, "UTC", format!("2026-02-01T00:00:00.000Z {}", 28 * day)),
    ] {
        let formats = format.map_or_else(Format::defaults, |format| Format::all(format).unwrap());
        let zone = super::zone(zone).unwrap();
        let found = read(&text, &formats, &zone, Timestamp::from_millis(NOW)).unwrap();
        assert_eq!(shown(found), expected, "{text}");
    }
    for bad in
        ["", "soon", "now-", "now-1x", "now/2d", "2026-13", "2026-01-02T", "T03", "2026-01-02Tx", "now+99999999999y"]
    {
        let read = read(&json!(bad), &Format::defaults(), &TimeZone::UTC, Timestamp::from_millis(NOW));
        assert!(read.is_err() || bad == "2026-01-02T", "{bad}: {read:?}");
    }
    for bad in ["qq", "", "yyyy-MM-dd G"] {
        assert!(Format::all(bad).is_err(), "{bad}");
    }
}

#[test]
fn instants_are_shown_in_forms_and_zones() {
    let at = NOW * MILLI + 120_000_001;
    for (format, zone, text) in [
        ("epoch_millis", "UTC", "1767323045120"),
        ("epoch_second", "UTC", "1767323045"),
        ("strict_date_optional_time", "UTC", "2026-01-02T03:04:05.120Z"),
        ("strict_date_optional_time", "-05:30", "2026-01-01T21:34:05.120-05:30"),
        ("strict_date_optional_time_nanos", "UTC", "2026-01-02T03:04:05.120000001Z"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "+01:00", "2026-01-02T04:04:05.120+01:00"),
        ("dd.MM.yy", "UTC", "02.01.26"),
    ] {
        let shown = Format::all(format).unwrap()[0].shown(at, &super::zone(zone).unwrap());
        assert_eq!(shown, text, "{format} {zone}");
    }
    assert!(super::zone("Mars/Olympus").is_err() && super::zone("+99:00").is_err());
    assert_eq!(sql(NOW * MILLI + 5), "TIMESTAMP '2026-01-02 03:04:05.000000005'");
}
