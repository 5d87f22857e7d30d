//! Cost against the size and against the number of modules, as an SVG.

use std::fmt::Write;

/// Pixels of one plot, and of the room around it.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 64.0;

/// One axis: what it shows, its ends, and the marks on it.
struct Axis {
    title: &'static str,
    from: f64,
    to: f64,
    logarithmic: bool,
    marks: Vec<(f64, String)>,
}

impl Axis {
    /// A logarithmic axis of whole decades; `unit` turns a power of ten into text.
    fn decades(title: &'static str, from: i32, to: i32, unit: impl Fn(i32) -> String) -> Self {
        let marks = (from..=to).map(|n| (10f64.powi(n), unit(n))).collect();
        Axis { title, from: 10f64.powi(from), to: 10f64.powi(to), logarithmic: true, marks }
    }

    fn linear(title: &'static str, to: f64, step: f64) -> Self {
        let marks = (0..=(to / step) as usize).map(|n| (n as f64 * step, format!("{}", n as f64 * step)));
        Axis { title, from: 0.0, to, logarithmic: false, marks: marks.collect() }
    }

    /// Where a value lies, 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.logarithmic { v.ln() } else { v };
        (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from))
    }
}

/// Both plots: bytes and seconds of each module; numbers of modules and seconds of all of them together.
pub fn svg(title: &str, by_size: &[(usize, f64)], by_number: &[(usize, f64)]) -> String {
    let mut out = String::new();
    let (width, height) = (2.0 * WIDTH + 3.0 * MARGIN, HEIGHT + 2.0 * MARGIN);
    writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">
<rect width="100%" height="100%" fill="#fff"/><text x="{}" y="24" text-anchor="middle" font-size="14">{title}</text>"##,
        width / 2.0
    )
    .unwrap();
    let mut sorted = by_size.to_vec();
    sorted.sort_by_key(|(bytes, _)| *bytes);
    // Every tenth is enough to see.
    let points: Vec<(f64, f64)> = sorted.iter().step_by(10).map(|(b, s)| (*b as f64, s * 1e6)).collect();
    let bytes = |n: i32| ["1 kB", "10 kB", "100 kB", "1 MB", "10 MB", "100 MB"][(n - 3) as usize].into();
    let time = |n: i32| ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms"][n as usize].into();
    let x = Axis::decades("file of one module (logarithmic)", 3, 8, bytes);
    let y = Axis::decades("open and load", 0, 5, time);
    let total: (f64, f64) = sorted.iter().fold((0.0, 0.0), |(b, s), (x, y)| (b + *x as f64, s + y * 1e6));
    // In proportion to the size: the mean of all.
    let guide = [1e4, 1e8].map(|b| (b, b * total.1 / total.0));
    plot(&mut out, MARGIN, &x, &y, &points, &guide);
    let points: Vec<(f64, f64)> = by_number.iter().map(|(n, s)| (*n as f64, s * 1e3)).collect();
    let (last, top) = points.last().copied().unwrap();
    let x = Axis::linear("modules of the tree, in any order", (last / 1000.0).ceil() * 1000.0, 1000.0);
    let y = Axis::linear("open and load, ms", (top / 20.0).ceil() * 20.0, 20.0);
    plot(&mut out, WIDTH + 2.0 * MARGIN, &x, &y, &points, &[(0.0, 0.0), (last, top)]);
    out.push_str("</svg>\n");
    out
}

fn plot(out: &mut String, left: f64, x: &Axis, y: &Axis, points: &[(f64, f64)], guide: &[(f64, f64); 2]) {
    let place = |(a, b): (f64, f64)| (left + x.at(a) * WIDTH, MARGIN + HEIGHT - y.at(b) * HEIGHT);
    writeln!(
        out,
        r##"<rect x="{left}" y="{MARGIN}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>"##
    )
    .unwrap();
    for (value, text) in &x.marks {
        let (at, bottom) = (left + x.at(*value) * WIDTH, MARGIN + HEIGHT);
        writeln!(out, r##"<text x="{at:.1}" y="{}" text-anchor="middle">{text}</text>"##, bottom + 16.0)
            .unwrap();
    }
    for (value, text) in &y.marks {
        let at = MARGIN + HEIGHT - y.at(*value) * HEIGHT;
        writeln!(out, r##"<text x="{}" y="{:.1}" text-anchor="end">{text}</text>"##, left - 6.0, at + 4.0)
            .unwrap();
    }
    let (middle, below) = (left + WIDTH / 2.0, MARGIN + HEIGHT + 36.0);
    writeln!(out, r##"<text x="{middle}" y="{below}" text-anchor="middle">{}</text>"##, x.title).unwrap();
    writeln!(out, r##"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"##, MARGIN - 10.0, y.title)
        .unwrap();
    let ((x1, y1), (x2, y2)) = (place(guide[0]), place(guide[1]));
    writeln!(
        out,
        r##"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="#c33" stroke-dasharray="4"/>"##
    )
    .unwrap();
    for point in points {
        let (cx, cy) = place(*point);
        writeln!(out, r##"<circle cx="{cx:.1}" cy="{cy:.1}" r="2" fill="#247" fill-opacity=".5"/>"##)
            .unwrap();
    }
}
