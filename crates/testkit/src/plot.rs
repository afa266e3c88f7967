//! Line charts as SVG: what the benchmark pages show.

use std::fmt::Write as _;

use serde_json::Value;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Room around the axes: left, right, top, bottom.
const MARGIN: [f64; 4] = [70.0, 190.0, 50.0, 60.0];
/// Colours that are told apart in print and by colour-blind readers (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Draws `{"title", "x", "y", "log_x", "series": [{"name", "points": [[x, y], …]}, …]}`; `None` where it is not that.
pub fn svg(chart: &Value) -> Option<String> {
    let text = |key: &str| chart.get(key).and_then(Value::as_str).unwrap_or_default();
    let log = chart.get("log_x").and_then(Value::as_bool).unwrap_or(false);
    let mut series = Vec::new();
    for one in chart.get("series")?.as_array()? {
        let point = |p: &Value| Some((p.get(0)?.as_f64()?, p.get(1)?.as_f64()?));
        let points: Option<Vec<(f64, f64)>> = one.get("points")?.as_array()?.iter().map(point).collect();
        series.push((one.get("name")?.as_str()?.to_owned(), points?));
    }
    let all = || series.iter().flat_map(|(_, points)| points.iter().copied());
    let along = |x: f64| if log { x.max(f64::MIN_POSITIVE).log10() } else { x };
    let (low, high) = all().fold((f64::MAX, f64::MIN), |(l, h), (x, _)| (l.min(along(x)), h.max(along(x))));
    let top = nice(all().map(|(_, y)| y).fold(0.0, f64::max));
    if low > high {
        return None;
    }
    let [left, right, above, below] = MARGIN;
    let place_x = |x: f64| left + (along(x) - low) / (high - low).max(1e-9) * (WIDTH - left - right);
    let place_y = |y: f64| HEIGHT - below - y / top * (HEIGHT - above - below);
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="{left}" y="28" font-size="15">{}</text>"##,
        escaped(text("title"))
    );
    for step in 0..=5 {
        let y = top * f64::from(step) / 5.0;
        let at = place_y(y);
        let _ = writeln!(
            out,
            r##"<line x1="{left}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}" stroke="#ddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
            WIDTH - right,
            left - 8.0,
            at + 4.0,
            number(y)
        );
    }
    let mut ticks: Vec<f64> = all().map(|(x, _)| x).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    // At most eight, so that they don't overlap.
    let every = ticks.len().div_ceil(8).max(1);
    for x in ticks.iter().step_by(every) {
        let at = place_x(*x);
        let _ = writeln!(
            out,
            r#"<text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            HEIGHT - below + 18.0,
            number(*x)
        );
    }
    let _ = writeln!(
        out,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text><text transform="translate(18 {:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
        (left + WIDTH - right) / 2.0,
        HEIGHT - 16.0,
        escaped(text("x")),
        (HEIGHT - below + above) / 2.0,
        escaped(text("y"))
    );
    for (i, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let line: Vec<_> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", place_x(*x), place_y(*y))).collect();
        let _ = writeln!(
            out,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            line.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(
                out,
                r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#,
                place_x(*x),
                place_y(*y)
            );
        }
        let at = above + 14.0 + 20.0 * i as f64;
        let _ = writeln!(
            out,
            r#"<circle cx="{:.1}" cy="{:.1}" r="4" fill="{colour}"/><text x="{:.1}" y="{at:.1}">{}</text>"#,
            WIDTH - right + 16.0,
            at - 4.0,
            WIDTH - right + 26.0,
            escaped(name)
        );
    }
    out.push_str("</svg>\n");
    Some(out)
}

/// Returns the next of 1, 2, 2.5, 5 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|n| n * power).find(|n| *n >= value * 0.999).unwrap_or(value)
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", short(v / 1e6)),
        v if v >= 1e3 => format!("{} k", short(v / 1e3)),
        v => short(v),
    }
}

/// At most two decimals, and none that are zero.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_chart_has_its_points_in_place_and_its_words_escaped() {
        let chart = json!({"title": "a < b", "x": "flows", "y": "ns", "log_x": true,
            "series": [{"name": "one & all", "points": [[1000, 0.0], [1_000_000, 100.0]]}]});
        let svg = svg(&chart).unwrap();
        // From the lower left to the upper right corner of the axes.
        assert!(svg.contains(r#"points="70.0,360.0 570.0,50.0""#), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("one &amp; all") && svg.contains(">1 M<"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn what_is_no_chart_is_refused_and_numbers_are_short() {
        for no in [json!({}), json!({"series": [{"name": "x"}]}), json!({"series": []})] {
            assert!(svg(&no).is_none(), "{no}");
        }
        for (value, want) in [(0.0, 1.0), (93.0, 100.0), (120.0, 200.0), (0.3, 0.5), (2.2, 2.5)] {
            assert!((nice(value) - want).abs() < 1e-9, "{value}");
        }
        assert_eq!([0.5, 20.0, 1500.0, 250_000.0].map(number), ["0.5", "20", "1.5 k", "250 k"]);
    }
}
