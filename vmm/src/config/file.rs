//! The TOML file of `--config`, and the same form for `--print-config`.

use super::{ConfigError, VmConfig};
use serde::de::DeserializeOwned;
use std::{fs, path::Path};

/// Reads a configuration file. Relative paths in it are taken from the working directory, as those of flags are.
pub fn load(path: &Path) -> Result<VmConfig, ConfigError> {
    let text = fs::read_to_string(path).map_err(|e| ConfigError::ReadFile(path.to_owned(), e))?;
    parse(&text).map_err(|problem| ConfigError::ParseFile(path.to_owned(), problem))
}

/// Reads the text of a file in TOML, such as a configuration; the error begins with line and column.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|e: toml::de::Error| {
        let at = e.span().and_then(|span| text.get(..span.start)).map(|before| {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
            format!("line {line}, column {column}: ")
        });
        format!("{}{}", at.unwrap_or_default(), e.message().replace('\n', " "))
    })
}

/// The configuration as a file that [`load`] reads back equal.
pub fn print(config: &VmConfig) -> Result<String, toml::ser::Error> {
    toml::to_string_pretty(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NumaConfig, flags};
    use proptest::prelude::*;

    fn config(args: &[(&str, &str)]) -> VmConfig {
        let texts = |flag: &str| -> &'static [String] {
            args.iter()
                .filter(|(f, _)| *f == flag)
                .map(|(_, t)| (*t).to_owned())
                .collect::<Vec<_>>()
                .leak()
        };
        let mut config = VmConfig::default();
        flags::apply(&mut config, texts).unwrap();
        config
    }

    fn full() -> VmConfig {
        config(&[
            ("kernel", "@debian-6.1-cloud-amd64"),
            ("initrd", "/boot/init,rd"),
            ("cmdline", "quiet console=ttyS0,115200 \"a b\""),
            ("boot", "pvh"),
            ("unpack", "off"),
            ("cpus", "4,threads=2"),
            ("cpu", "vendor=GenuineIntel,-avx512f,-pku"),
            ("memory", "1G,hugepages=2M,shared=on"),
            (
                "limits",
                "static-max=4G,dynamic-max=3G,target=2G,dynamic-min=512M,static-min=256M",
            ),
            ("memory-limit", "512M,by=map"),
            ("numa", "node=0,cpus=[0,2-3],memory=512M"),
            ("numa", "node=1,cpus=1,memory=512M,distance=[0:21,2:31]"),
            ("numa", "node=2,hotplug=2G,mirror=1M,initiator=1"),
            ("distance", "from=0,to=2,value=30"),
            ("nvdimm", "/tmp/a,,b.img,size=512M,node=2,label=256K"),
            ("nvdimm", "size=16M,readonly=off,label=0,id=scratch"),
            (
                "nvdimm",
                "/x,size=16M,flush=count,health-alarms=[],health-media-temperature=-3,health-condition=ok",
            ),
            (
                "nvdimm",
                "/y,size=16M,flush=none,health-alarms=[spares,media-temperature],health-shutdown-count=0",
            ),
            ("nvdimm-bus", "0,persistence=memory-controller"),
            ("hmat", "initiator=0,target=2,read-latency=12.5ns,bandwidth=2GB/s"),
            ("hmat", "latency=100ns"),
            (
                "memory-cache",
                "node=0,size=1G,level=2,associativity=direct,write-policy=back,line=128",
            ),
            ("generic-initiator", "node=2,uid=5"),
            ("memory-range", "size=1G,type=soft-reserved,node=2,start=0x100000000"),
            ("memory-range", "size=4K,type=ram,mirror=on,id=x"),
            ("virtio-pmem", "/tmp/a,,b.img,size=64M,node=2,readonly=on"),
            ("virtio-pmem", "size=64M,id=scratch-pmem"),
            ("virtio-mem", "size=2G,requested=128M,block=4M,node=1,id=grow"),
            (
                "disk",
                "/tmp/d,,0.img,readonly=on,iops=100,bandwidth=10M,burst=1s,serial=X1",
            ),
            ("disk", "/tmp/d1.img,size=1G,id=data"),
            (
                "disk-fault",
                "disk=data,op=read,sectors=0-7,latency=5ms,jitter=1s,distribution=normal",
            ),
            ("disk-fault", "disk=disk0,hang=on,error=on,count=3"),
            ("net", "link=a,mtu=9000,id=left"),
            ("net", "link=a"),
            ("net", "tap=tap0,mac=02:64:61:78:01:00"),
            ("net", "link=/run/l,,1.sock,mac=02:64:61:78:01:01"),
            ("share", "/usr/src,tag=src"),
            ("share", "path=/tmp/a,,b"),
            ("vsock", "cid=42,socket=/tmp/v,,sock"),
            ("ars", "scan-time=2s,records=4"),
            ("apei", "on,poll=2s"),
            ("poison", "clear-on-write=on,userfaultfd=off"),
            ("console", "file:/tmp/log,1"),
            ("agent-socket", "/run/agent.sock"),
        ])
    }

    #[test]
    fn printed_configuration_loads_back_equal() {
        for config in [VmConfig::default(), full()] {
            let text = print(&config).unwrap();
            assert_eq!(parse::<VmConfig>(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn written_arguments_make_the_same_configuration() {
        assert_eq!(flags::to_args(&VmConfig::default()).unwrap(), Vec::<String>::new());
        let args = flags::to_args(&full()).unwrap();
        let pairs: Vec<_> = args
            .iter()
            .map(|a| a.trim_start_matches("--").split_once('=').unwrap())
            .collect();
        assert_eq!(config(&pairs), full(), "{args:?}");
    }

    #[test]
    fn file_errors_name_line_and_column() {
        let text = "kernel = 'x'\n[memory]\nsize = '1Q'\n";
        let error = parse::<VmConfig>(text).unwrap_err();
        assert!(error.starts_with("line 3, column 8: '1Q' is not a size"), "{error}");
        let error = parse::<VmConfig>("[memory]\nbytes = 3\n").unwrap_err();
        assert!(
            error.contains("unknown field `bytes`, expected one of `size`, `hugepages`, `shared`"),
            "{error}"
        );
        let error = parse::<VmConfig>("kernel = [").unwrap_err();
        assert!(error.starts_with("line 1, column "), "{error}");
    }

    proptest! {
        #[test]
        fn any_nodes_survive_file_and_arguments(nodes in proptest::collection::vec((0u32..64, 0u8..64, 0u64..1 << 40), 0..5)) {
            let node = |(node, cpu, memory)| NumaConfig {
                node,
                cpus: crate::config::CpuList(vec![cpu]),
                memory: devices::units::ByteSize(memory),
                ..NumaConfig::default()
            };
            let machine = VmConfig { numa: nodes.into_iter().map(node).collect(), ..VmConfig::default() };
            prop_assert_eq!(&parse::<VmConfig>(&print(&machine).unwrap()).unwrap(), &machine);
            let args = flags::to_args(&machine).unwrap();
            let pairs: Vec<_> = args.iter().map(|a| a.trim_start_matches("--").split_once('=').unwrap()).collect();
            prop_assert_eq!(config(&pairs), machine);
        }

        #[test]
        fn any_text_is_a_configuration_or_an_error(text in "\\PC{0,80}") {
            let _ = parse::<VmConfig>(&text);
        }
    }
}
