//! Lines in a coordinate system, as a small SVG.

use std::fmt::Write;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
/// Room around the coordinate system.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 110.0;
const TICKS: u32 = 5;
/// A line has at most so many points: more are not seen.
const POINTS_MAX: usize = 900;

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The picture. Both axes begin at zero.
pub(crate) fn plot(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let most = |value: fn(&(f64, f64)) -> f64| {
        round_up(lines.iter().flat_map(|line| &line.points).map(value).fold(1.0, f64::max))
    };
    let (x_max, y_max) = (most(|point| point.0), most(|point| point.1));
    let x_at = |x: f64| LEFT + x / x_max * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| HEIGHT - BOTTOM - y / y_max * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, WIDTH / 2.0, 22.0, "middle", title);
    for tick in 0..=TICKS {
        let part = f64::from(tick) / f64::from(TICKS);
        let (x, y) = (part * x_max, part * y_max);
        let (left, right, here) = (x_at(0.0), x_at(x_max), y_at(y));
        let _ = writeln!(
            svg,
            "<line x1=\"{left:.1}\" y1=\"{here:.1}\" x2=\"{right:.1}\" y2=\"{here:.1}\" stroke=\"#dddddd\"/>"
        );
        text(&mut svg, left - 6.0, here + 4.0, "end", &number(y));
        text(&mut svg, x_at(x), y_at(0.0) + 16.0, "middle", &number(x));
    }
    text(&mut svg, x_at(x_max / 2.0), y_at(0.0) + 34.0, "middle", x_name);
    text(&mut svg, LEFT - 6.0, TOP - 10.0, "end", y_name);
    for (at, line) in lines.iter().enumerate() {
        let step = line.points.len().div_ceil(POINTS_MAX).max(1);
        // Of the points that fall together the highest one is drawn: that is the one that a bound is about.
        let drawn = line
            .points
            .chunks(step)
            .filter_map(|points| points.iter().max_by(|one, other| one.1.total_cmp(&other.1)));
        let points: Vec<String> = drawn.map(|(x, y)| format!("{:.1},{:.1}", x_at(*x), y_at(*y))).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"{}\"/>",
            line.colour,
            points.join(" ")
        );
        let (x, y) = (LEFT + 280.0 * (at % 3) as f64, HEIGHT - 50.0 + 18.0 * (at / 3) as f64);
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{}\" stroke-width=\"3\"/>",
            x + 24.0,
            line.colour
        );
        text(&mut svg, x + 30.0, y + 4.0, "start", &line.name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

/// The next number of one digit that counts, or of two that end in 5.
fn round_up(value: f64) -> f64 {
    let digit = 10_f64.powf(value.log10().floor());
    (value / digit * 2.0).ceil() / 2.0 * digit
}

fn number(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}
