//! The page as a browser has it: what it makes of the text, and what it shows.

use super::{Files, page, tests::some};
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::Path,
    process::{Command, Output},
};

/// Windows in which everything of the page has its place.
const SIZE: (usize, usize) = (1000, 1400);
const MAP: &str = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 960 46' width='960' height='46'><rect width='960' height='46' fill='#4e79a7'/></svg>";

/// Chromium without a window, a profile of before, or a network.
fn chromium(folder: &Path, flags: &[String]) -> Output {
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ])
        .args([
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .args(flags)
        .arg(format!("file://{}/index.html", folder.display()));
    let output = command.output().expect("chromium; hint: install the package chromium");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    output
}

/// A page of results, in a folder.
fn written() -> tempfile::TempDir {
    let files = Files {
        console: "<script>document.title = 'guest'</script><article>".into(),
        map: MAP.into(),
        config: String::new(),
    };
    let files = BTreeMap::from([("mem/nodes[two]@6.12".to_owned(), files)]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), page(&some(), &files)).unwrap();
    folder
}

/// A byte as PNG's filters predict it. W3C PNG 9.2.
fn predicted(filter: u8, left: u8, up: u8, corner: u8) -> u8 {
    let [a, b, c] = [left, up, corner].map(i32::from);
    let p = a + b - c;
    let paeth = [left, up, corner].into_iter().min_by_key(|x| (p - i32::from(*x)).abs());
    match filter {
        0 => 0,
        1 => left,
        2 => up,
        3 => u8::try_from(i32::midpoint(a, b)).unwrap(),
        _ => paeth.unwrap(),
    }
}

/// Rows of a picture of eight bits a channel, and bytes of a pixel.
fn rows(png: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
    let (width, depth, kind) = (number(16), png[24], png[25]);
    let pixel = match (depth, kind) {
        (8, 2) => 3,
        (8, 6) => 4,
        other => panic!("a picture of another kind: {other:?}"),
    };
    let (mut at, mut packed) = (8, Vec::new());
    while at < png.len() {
        let len = number(at);
        if &png[at + 4..at + 8] == b"IDAT" {
            packed.extend(&png[at + 8..at + 8 + len]);
        }
        at += len + 12;
    }
    let mut raw = Vec::new();
    flate2::read::ZlibDecoder::new(&*packed).read_to_end(&mut raw).unwrap();
    let mut rows: Vec<Vec<u8>> = vec![vec![0; width * pixel]];
    for line in raw.chunks_exact(width * pixel + 1) {
        let (above, mut row) = (rows.last().unwrap(), line[1..].to_vec());
        for i in 0..row.len() {
            let before = |of: &[u8]| i.checked_sub(pixel).map_or(0, |j| of[j]);
            row[i] = row[i].wrapping_add(predicted(line[0], before(&row), above[i], before(above)));
        }
        rows.push(row);
    }
    (rows.split_off(1), pixel)
}

#[test]
fn a_browser_reads_the_page_as_it_is_meant() {
    let folder = written();
    let output = chromium(folder.path(), &["--dump-dom".into()]);
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(dom.contains("<title>daxvisor boot tests</title>"), "{dom}");
    assert_eq!(dom.matches("<article ").count(), some().len(), "{dom}");
    // Nothing that a guest said became an element, and nothing of the page had to be put right.
    assert!(
        !dom.contains("<script") && dom.contains("&lt;script&gt;document.title"),
        "{dom}"
    );
    assert_eq!(dom.matches("</article>").count(), some().len(), "{dom}");
    let cells = dom
        .split("<table id=\"matrix\">")
        .nth(1)
        .unwrap()
        .split("</table>")
        .next()
        .unwrap();
    for word in ["pass", "flaky", "crash", "xfail", "skip", "error"] {
        let cell = format!("<td class=\"{word}\"><a href=\"#case");
        assert!(cells.contains(&cell), "{word}: {cells}");
    }
}

#[test]
fn a_browser_shows_verdicts_and_memory_in_their_colours() {
    let folder = written();
    let png = folder.path().join("page.png");
    let (width, height) = SIZE;
    let flags = [
        format!("--screenshot={}", png.display()),
        format!("--window-size={width},{height}"),
    ];
    chromium(folder.path(), &flags);
    let (rows, pixel) = rows(&fs::read(png).unwrap());
    assert_eq!((rows.len(), rows[0].len() / pixel), (height, width));
    // Of verdicts a cell and a word each, of memory a bar: pixels of that colour at least.
    for (what, colour, least) in [
        ("pass", [0xd9, 0xf0, 0xd9], 500),
        ("crash", [0xf6, 0xcc, 0xcc], 500),
        ("error", [0xe3, 0xd0, 0xf0], 500),
        ("memory", [0x4e, 0x79, 0xa7], 20_000),
    ] {
        let pixels = rows.iter().flat_map(|row| row.chunks_exact(pixel));
        let found = pixels.filter(|p| p[..3] == colour).count();
        assert!(found >= least, "{what}: {found} pixels, expected {least}");
    }
}
