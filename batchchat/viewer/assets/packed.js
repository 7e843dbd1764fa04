// What the page holds compressed, and where its chats lie.

export const canUnpack = typeof DecompressionStream === "function";

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place += 1) bytes[place] = binary.charCodeAt(place);
  return bytes;
}

export async function unpackText(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Once all of the page has arrived.
export function arrived() {
  if (document.readyState !== "loading") return Promise.resolve();
  return new Promise((resolve) => addEventListener("DOMContentLoaded", resolve, { once: true }));
}

// Chats within the page.
export function inPage() {
  const textOf = async (id) => {
    await arrived();
    const holder = document.getElementById(id);
    if (!holder) throw new Error("this page is not complete: " + id + " is missing");
    return unpackText(holder.textContent);
  };
  return { block: (n) => textOf("block-" + n), chunk: (n) => textOf("chunk-" + n) };
}

// Chats in files beside the page: scripts that hand over their text, since pages on a disk may load nothing else.
export function inFolder() {
  const waiting = new Map();
  globalThis.batchchatChunk = (n, text) => waiting.get(n)?.(text);
  const chunk = async (n) => {
    const script = document.createElement("script");
    const text = await new Promise((resolve, reject) => {
      waiting.set(n, resolve);
      script.onerror = () => reject(new Error("chats/" + n + ".js is missing beside this page; copy the whole folder"));
      script.src = "chats/" + n + ".js";
      document.head.append(script);
    });
    waiting.delete(n);
    script.remove();
    return unpackText(text);
  };
  return { ...inPage(), chunk };
}

// Chats that `batchchat view --serve` hands out.
export function served() {
  const get = async (path) => {
    const answer = await fetch(path, { cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.text()) || "the server said " + answer.status);
    return answer.text();
  };
  return { block: (n) => get("block/" + n), chunk: (n) => get("chunk/" + n), head: () => get("head") };
}
