// A ZIP of files as they are: pictures are compressed already. PKWARE, APPNOTE 6.3, without ZIP64.
const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
const UTF8 = 0x0800, DATE = (1 << 5) | 1;  // names are UTF-8; 1 January 1980: no time is told

export function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

function record(parts) {
  const bytes = new DataView(new ArrayBuffer(parts.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of parts) {
    if (size === 2) bytes.setUint16(at, value, true);
    else bytes.setUint32(at, value, true);
    at += size;
  }
  return new Uint8Array(bytes.buffer);
}

// Files { name, blob } in as many lists as their ZIPs have to be, for none may be larger than 4 GiB.
export function parcels(files, most = { files: 0xffff, bytes: 0xf0000000 }) {
  const lists = [];
  let room = 0;
  for (const file of files) {
    if (!lists.length || file.blob.size > room || lists.at(-1).length === most.files) {
      lists.push([]);
      room = most.bytes;
    }
    lists.at(-1).push(file);
    room -= file.blob.size;
  }
  return lists;
}

// Files { name, blob } as one blob.
export async function zip(files) {
  const body = [], directory = [];
  let at = 0;
  for (const { name, blob } of files) {
    const title = new TextEncoder().encode(name);
    const crc = crc32(new Uint8Array(await blob.arrayBuffer()));
    const common = [[2, 20], [2, UTF8], [2, 0], [2, 0], [2, DATE], [4, crc], [4, blob.size],
      [4, blob.size], [2, title.length], [2, 0]];
    const head = record([[4, 0x04034b50], ...common]);
    body.push(head, title, blob);
    directory.push(record([[4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]), title);
    at += head.length + title.length + blob.size;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record([[4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length],
    [4, size], [4, at], [2, 0]]);
  return new Blob([...body, ...directory, end], { type: "application/zip" });
}
