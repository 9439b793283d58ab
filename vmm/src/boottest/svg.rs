//! The guest physical map as a picture. Pure.

use crate::layout::map::Report;
use std::fmt::Write;

/// Colours of nodes; more nodes take them again.
const COLOURS: [&str; 8] = [
    "#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#edc948", "#9c755f", "#ff9da7",
];
const OTHER: &str = "#c8c8c8";
const WIDTH: f64 = 960.0;
const BAR: f64 = 46.0;

/// A bar of ranges in address order. Widths grow with the square root of sizes, so that small ranges can be seen.
pub fn map(report: &Report) -> String {
    let width = |len: u64| {
        // A picture needs no more digits than it has pixels.
        #[expect(clippy::cast_precision_loss, reason = "a width in pixels")]
        let len = len as f64;
        len.sqrt()
    };
    let ranges: Vec<_> = report.map.iter().filter(|e| e.last >= e.start).collect();
    let total: f64 = ranges.iter().map(|e| width(e.last - e.start)).sum::<f64>().max(1.0);
    let mut x = 0.0;
    let mut body = String::new();
    for entry in &ranges {
        let w = width(entry.last - entry.start) / total * WIDTH;
        let colour = entry
            .node
            .map_or(OTHER, |n| COLOURS[usize::try_from(n).unwrap_or(0) % COLOURS.len()]);
        let node = entry.node.map(|n| format!(", node {n}")).unwrap_or_default();
        let name = entry.name.as_deref().map(|n| format!(" {n}")).unwrap_or_default();
        let title = escape(&format!(
            "{:#x}-{:#x} {}{name}{node}",
            entry.start, entry.last, entry.kind
        ));
        let dash = if entry.kind.starts_with("NVDIMM") {
            " stroke-dasharray='3 2'"
        } else {
            ""
        };
        let _ = write!(
            body,
            "<rect x='{x:.2}' y='0' width='{w:.2}' height='{BAR}' fill='{colour}' stroke='#222' stroke-width='0.5'{dash}><title>{title}</title></rect>"
        );
        if w > 60.0 {
            let label = entry
                .node
                .map_or_else(|| entry.kind.to_string(), |n| format!("{} n{n}", entry.kind));
            let _ = write!(
                body,
                "<text x='{:.2}' y='28' font-size='11' text-anchor='middle'>{}</text>",
                x + w / 2.0,
                escape(&label)
            );
        }
        x += w;
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {BAR}' width='{WIDTH}' height='{BAR}' role='img' \
         font-family='sans-serif'><title>guest physical map</title>{body}</svg>"
    )
}

/// Text for HTML, XML and SVG.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
