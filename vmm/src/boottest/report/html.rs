//! One static page: the matrix, timings, consoles and memory maps. It needs no network and no script.

use super::{cell, kernels, scenario, scenarios};
use crate::boottest::{
    svg::escape,
    verdict::{CaseResult, Verdict},
};
use std::{collections::BTreeMap, fmt::Write};

/// Bytes of a console that the page shows, its end.
const CONSOLE: usize = 64 << 10;

/// What the page shows of a case's folder.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// `console.log`.
    pub console: String,
    /// `memory-map.svg`.
    pub map: String,
    /// `config.toml`.
    pub config: String,
}

const STYLE: &str = "body{font:14px/1.4 sans-serif;margin:1.5em;color:#222;max-width:75em}table{border-collapse:collapse;margin:1em 0}\
td,th{border:1px solid #bbb;padding:.25em .6em;text-align:left;vertical-align:top}a{color:inherit}pre{background:#f4f4f4;padding:.6em;overflow:auto;max-height:30em;font-size:12px}\
.pass{background:#d9f0d9}.fail,.crash,.flaky{background:#f6cccc}.timeout{background:#fbe0bf}.error{background:#e3d0f0}.skip{background:#eee}\
.xfail,.xcrash,.xtimeout{background:#dde6f0}article{border-top:1px solid #ccc;margin-top:1.2em;padding-top:.4em}.num{text-align:right}svg{max-width:100%;height:auto}";

/// The page.
pub fn page(results: &[CaseResult], files: &BTreeMap<String, Files>) -> String {
    let mut body = String::from("<h1>Boot tests</h1>");
    let good = results.iter().filter(|r| r.is_fine()).count();
    let _ = write!(
        body,
        "<p id='counts'>{} cases, {} to be looked at.</p>",
        results.len(),
        results.len() - good
    );
    matrix(&mut body, results);
    timings(&mut body, results);
    let empty = Files::default();
    for (at, result) in results.iter().enumerate() {
        case(&mut body, at, result, files.get(&result.id).unwrap_or(&empty));
    }
    format!(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>\
         <title>daxvisor boot tests</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )
}

fn matrix(body: &mut String, results: &[CaseResult]) {
    let kernels = kernels(results);
    body.push_str("<table id='matrix'><tr><th>scenario</th>");
    for kernel in &kernels {
        let release = results
            .iter()
            .find(|r| r.kernel == *kernel)
            .and_then(|r| r.release.as_deref())
            .unwrap_or("-");
        let _ = write!(
            body,
            "<th>{}<br><small>{}</small></th>",
            escape(kernel),
            escape(release)
        );
    }
    body.push_str("</tr>");
    for name in scenarios(results) {
        let _ = write!(body, "<tr><td>{}</td>", escape(&name));
        for kernel in &kernels {
            let word = cell(results, &name, kernel).unwrap_or_else(|| "-".to_owned());
            match results.iter().position(|r| r.kernel == *kernel && scenario(r) == name) {
                Some(at) => {
                    let _ = write!(body, "<td class='{word}'><a href='#case{at}'>{word}</a></td>");
                }
                None => body.push_str("<td>-</td>"),
            }
        }
        body.push_str("</tr>");
    }
    body.push_str("</table>");
}

/// Boot and run times by kernel.
fn timings(body: &mut String, results: &[CaseResult]) {
    body.push_str("<h2>Times in seconds, median</h2><table id='times'><tr><th>kernel</th><th>cases</th><th>start to agent</th><th>guest's own boot</th><th>whole case</th></tr>");
    for kernel in kernels(results) {
        let ours: Vec<_> = results.iter().filter(|r| r.kernel == kernel).collect();
        let column = |f: fn(&CaseResult) -> Option<f64>| {
            let found = median(ours.iter().filter_map(|r| f(r)).collect());
            found.map_or_else(|| "-".to_owned(), |m| format!("{m:.2}"))
        };
        let _ = write!(
            body,
            "<tr><td>{}</td><td class='num'>{}</td><td class='num'>{}</td><td class='num'>{}</td><td class='num'>{}</td></tr>",
            escape(kernel),
            ours.len(),
            column(|r| r.boot_seconds),
            column(|r| r.guest_boot_seconds),
            column(|r| Some(r.seconds)),
        );
    }
    body.push_str("</table>");
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn case(body: &mut String, at: usize, result: &CaseResult, files: &Files) {
    let word = result.word();
    let _ = write!(
        body,
        "<article id='case{at}'><h3><span class='{word}'>{word}</span> {}</h3><p>{:.2} s</p>",
        escape(&result.id),
        result.seconds
    );
    if !result.reason.is_empty() {
        let _ = write!(body, "<p><b>{}</b></p>", escape(&result.reason));
    }
    if let Some(expected) = &result.expected {
        let _ = write!(body, "<p>Expected: {}</p>", escape(expected));
    }
    for attempt in &result.earlier {
        let _ = write!(
            body,
            "<p>Attempt before: {}: {}</p>",
            attempt.verdict,
            escape(&attempt.reason)
        );
    }
    if let Some(oops) = &result.oops {
        let trace: String = oops.trace.iter().map(|t| format!("{}\n", escape(t))).collect();
        let _ = write!(body, "<p>{}</p><pre>{trace}</pre>", escape(&oops.title));
    }
    // Generated by this program from numbers and escaped names.
    body.push_str(&files.map);
    if !result.steps.is_empty() {
        body.push_str("<details><summary>steps</summary><table>");
        for step in &result.steps {
            let ok = if step.ok { Verdict::Pass } else { Verdict::Fail };
            let _ = write!(
                body,
                "<tr class='{ok}'><td>{}</td><td class='num'>{:.2}</td></tr>",
                escape(&step.name),
                step.seconds
            );
        }
        body.push_str("</table></details>");
    }
    if !result.subtests.is_empty() {
        body.push_str("<details><summary>sub-tests</summary><table>");
        for test in &result.subtests {
            let _ = write!(
                body,
                "<tr><td>{}</td><td>{:?}</td><td>{}</td></tr>",
                escape(&test.name),
                test.status,
                escape(&test.detail)
            );
        }
        body.push_str("</table></details>");
    }
    for (what, text) in [("console", &files.console), ("configuration", &files.config)] {
        if !text.is_empty() {
            let from = (text.len().saturating_sub(CONSOLE)..=text.len())
                .find(|i| text.is_char_boundary(*i))
                .unwrap_or(0);
            let _ = write!(
                body,
                "<details><summary>{what}</summary><pre>{}</pre></details>",
                escape(&text[from..])
            );
        }
    }
    body.push_str("</article>");
}
