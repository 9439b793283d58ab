//! Server-sent events: the machine's log as it grows, to any number of readers.
//!
//! A reader that is slow reads from the log later. What is not kept any more by then is told as one event `gap`. One that
//! takes nothing at all is let go of like every client.

use crate::control::{Event, EventLog, Happening};
use axum::body::Body;
use futures_util::stream;
use hyper::body::Bytes;
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

/// A line after so long without an event, so that a connection whose other end has gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events taken from the log at once.
const BATCH: usize = 64;

/// What streams are made of.
#[derive(Clone)]
pub(super) struct Source {
    log: Arc<EventLog>,
    news: Arc<Notify>,
    stop: watch::Receiver<bool>,
}

impl Source {
    pub(super) fn new(log: Arc<EventLog>, stop: watch::Receiver<bool>) -> Self {
        let news = Arc::new(Notify::new());
        let bell = news.clone();
        log.on_event(move || bell.notify_waiters());
        Self { log, news, stop }
    }

    /// The number of the newest event.
    pub(super) fn last(&self) -> u64 {
        self.log.last()
    }

    /// A body of what happens after event `seq`.
    pub(super) fn body(&self, seq: u64) -> Body {
        let reader = Reader {
            source: self.clone(),
            next: seq,
            queue: VecDeque::new(),
            ended: false,
        };
        Body::from_stream(stream::unfold(reader, async |mut reader| {
            let text = reader.text().await?;
            Some((Ok::<_, Infallible>(Bytes::from(text)), reader))
        }))
    }
}

struct Reader {
    source: Source,
    next: u64,
    queue: VecDeque<Event>,
    ended: bool,
}

impl Reader {
    /// The next piece of the stream; none: it is over.
    async fn text(&mut self) -> Option<String> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(written(&event));
            }
            if self.ended {
                return None;
            }
            let news = self.source.news.clone();
            let mut told = std::pin::pin!(news.notified());
            // From here on no event is missed.
            told.as_mut().enable();
            if self.fetch() {
                continue;
            }
            let mut stop = self.source.stop.clone();
            tokio::select! {
                () = told => {}
                _ = stop.wait_for(|stop| *stop) => self.ended = !self.fetch(),
                () = sleep(KEEP_ALIVE) => return Some(": nothing happened\n\n".to_owned()),
            }
        }
    }

    /// Takes from the log; false: there is nothing new.
    fn fetch(&mut self) -> bool {
        let list = self.source.log.since(self.next, BATCH);
        if let (Some(first), lost @ 1..) = (list.events.first(), list.lost) {
            self.queue.push_back(Event {
                seq: first.seq - 1,
                at_ms: first.at_ms,
                what: Happening::Gap { lost },
            });
        }
        if let Some(last) = list.events.last() {
            self.next = last.seq;
            self.ended = matches!(last.what, Happening::End { .. });
        }
        self.queue.extend(list.events);
        !self.queue.is_empty()
    }
}

/// An event as the stream has it.
fn written(event: &Event) -> String {
    let data = serde_json::to_value(event).unwrap_or_default();
    let kind = data["event"].as_str().unwrap_or_default();
    format!("id: {}\nevent: {kind}\ndata: {data}\n\n", event.seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Phase;
    use http_body_util::BodyExt;
    use tokio::runtime::Builder;

    fn source(log: &Arc<EventLog>) -> (Source, watch::Sender<bool>) {
        let (stop, stopped) = watch::channel(false);
        (Source::new(log.clone(), stopped), stop)
    }

    async fn next(body: &mut Body) -> Option<String> {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    fn state() -> Happening {
        Happening::State { state: Phase::Paused }
    }

    #[test]
    fn readers_see_what_happens_and_end_with_the_machine() {
        let log = Arc::new(EventLog::default());
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (source, _stop) = source(&log);
            log.push(1, state());
            let (mut old, mut new) = (source.body(0), source.body(source.last()));
            let text = next(&mut old).await.unwrap();
            let expected =
                "id: 1\nevent: state\ndata: {\"at_ms\":1,\"event\":\"state\",\"seq\":1,\"state\":\"paused\"}\n\n";
            assert_eq!(text, expected);
            let later = log.clone();
            let writer = std::thread::spawn(move || later.push(2, Happening::End { outcome: "x".into() }));
            assert!(next(&mut new).await.unwrap().starts_with("id: 2\nevent: end\n"));
            writer.join().unwrap();
            assert_eq!(next(&mut new).await, None);
            assert!(next(&mut old).await.unwrap().starts_with("id: 2\n"));
        });
    }

    #[test]
    fn a_reader_that_was_slow_is_told_of_the_gap_and_a_stop_ends_it() {
        let log = Arc::new(EventLog::default());
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (source, stop) = source(&log);
            let mut body = source.body(0);
            for n in 0..2000 {
                log.push(n, state());
            }
            let gap = next(&mut body).await.unwrap();
            assert!(
                gap.starts_with("id: 976\nevent: gap\n") && gap.contains("\"lost\":976"),
                "{gap}"
            );
            for seq in 977..=2000 {
                let text = next(&mut body).await.unwrap();
                assert!(text.starts_with(&format!("id: {seq}\n")), "{text}");
            }
            stop.send(true).unwrap();
            assert_eq!(next(&mut body).await, None);
        });
    }
}
