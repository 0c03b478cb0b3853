use std::collections::VecDeque;
use std::task::{Context, Poll};

use millrace_buf::ByteChain;
use millrace_codec::engine::order::VideoSource;
use millrace_media::codec::VideoCodec;
use millrace_runtime::{ActorId, Policy, Process, Supervisor};

use super::*;
use crate::encoders::{Behind, EndCause, Ended};

/// A child that makes a picture of each keyframe's bytes, and ends at the bytes `bad`.
#[derive(Debug, Default)]
struct Fake {
    runs: bool,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Fakes;

impl EncoderFactory for Fakes {
    fn open(&self, plan: &Plan) -> Box<dyn Encoders> {
        assert!(plan.pictures && plan.rungs.is_empty() && !plan.audio);
        Box::new(Fake::default())
    }
}

impl Encoders for Fake {
    fn send(&mut self, order: Order) -> Result<(), Behind> {
        match order {
            Order::Start(_) => self.runs = true,
            Order::Picture(picture) if picture.data.contiguous() == "bad" => {
                let ended = Ended { cause: EndCause::Died, text: "died".to_owned() };
                self.events.push_back(Event::Ended(ended));
                self.runs = false;
            }
            Order::Picture(picture) if self.runs => {
                let jpeg = picture.data.contiguous();
                self.events.push_back(Event::Product(Product::Thumbnail { pts: picture.pts, jpeg }));
            }
            Order::Flush if self.runs => self.events.push_back(Event::Product(Product::Flushed)),
            _ => {}
        }
        Ok(())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

fn snapshot(bytes: &'static str) -> Snapshot {
    let source = VideoSource {
        codec: VideoCodec::H264,
        record: Bytes::new(),
        width: 160,
        height: 90,
        pixel_aspect: (1, 1),
        frame_rate_milli: 0,
        bitrate: 0,
        version: 0,
    };
    Snapshot { source, data: ByteChain::from(Bytes::from_static(bytes.as_bytes())) }
}

async fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = found() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap()
}

#[tokio::test]
async fn pictures_come_to_their_own_stream_and_a_stream_that_ends_the_child_is_left_out() {
    let process = Process::default();
    let supervisor = Supervisor::start("test", &process.metrics, &process.drain, &process.actors).unwrap();
    let metrics = Arc::new(Metrics::new(&process.metrics));
    let service = PictureService::new(Arc::new(Fakes), metrics.clone());
    let running = service.clone();
    let id = ActorId::new("pictures", "transcode");
    supervisor.spawn(id, Policy::vital(), move |actor| running.clone().run(actor)).await.unwrap();
    let (one, two, bad) = (PictureSlot::default(), PictureSlot::default(), PictureSlot::default());
    service.ask(snapshot("first"), &one);
    service.ask(snapshot("second"), &two);
    assert_eq!(until(|| one.take()).await, "first");
    assert_eq!(until(|| two.take()).await, "second");
    for failures in 1..=u64::from(MAX_FAILURES) {
        service.ask(snapshot("bad"), &bad);
        until(|| (metrics.pictures.with(&["failed"]).get() == failures).then_some(())).await;
    }
    service.ask(snapshot("bad"), &bad);
    assert_eq!(metrics.pictures.with(&["left_out"]).get(), 1);
    service.ask(snapshot("third"), &one);
    assert_eq!(until(|| one.take()).await, "third", "the others go on");
    assert_eq!(bad.take(), None);
    supervisor.stop().await;
}

mod sampling {
    use millrace_wire::ids::{DiscontinuitySeq, Epoch, InitVersion, MediaSeq, Msn};
    use millrace_wire::message::media::{FrameUnit, MediaMessage, MediaUnit, Track};

    use super::*;

    fn frame(dts: i64, keyframe: bool, track: Track) -> MediaUnit {
        MediaUnit::Frame(FrameUnit {
            track,
            msn: Msn(1),
            discontinuity_sequence: DiscontinuitySeq(0),
            init_version: InitVersion(0),
            dts,
            cts: 0,
            keyframe,
            boundary: keyframe,
            independent: true,
            discontinuity: false,
            duration: 3_000,
            may_be_last: false,
            data: ByteChain::from(Bytes::from(format!("{dts}"))),
        })
    }

    fn look(sampler: &mut Sampler, units: Vec<MediaUnit>) -> Option<Bytes> {
        let message = MediaMessage { epoch: Epoch(1), seq: MediaSeq(0), end: false, units };
        sampler.look(&message).map(|snapshot| snapshot.data.contiguous())
    }

    #[test]
    fn sampler_takes_a_keyframe_every_ten_seconds_of_media() {
        let mut sampler = Sampler::default();
        let keyframe = |dts| vec![frame(dts, true, Track::Video)];
        assert_eq!(look(&mut sampler, keyframe(0)), None, "without a configuration");
        sampler.configure_for_test();
        assert_eq!(look(&mut sampler, vec![frame(0, false, Track::Video)]), None);
        assert_eq!(look(&mut sampler, vec![frame(0, true, Track::Audio)]), None);
        assert_eq!(look(&mut sampler, keyframe(90_000)).as_deref(), Some(&b"90000"[..]), "the first at once");
        assert_eq!(look(&mut sampler, keyframe(900_000)), None);
        assert!(look(&mut sampler, keyframe(990_000)).is_some());
        assert!(look(&mut sampler, keyframe(5)).is_some(), "time that was set back");
    }
}
