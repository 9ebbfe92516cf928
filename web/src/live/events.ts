/** Reads server-sent events (HTML Living Standard, 9.2.6) out of pieces of text. */

export interface ServerEvent {
  event: string;
  data: string;
  id: string | null;
}

/** Takes text as it comes, cut anywhere; gives the events that are complete. */
export class EventReader {
  private rest = "";
  private data: string[] = [];
  private event = "";
  private id: string | null = null;

  read(piece: string): ServerEvent[] {
    const found: ServerEvent[] = [];
    this.rest += piece;
    for (;;) {
      const end = /\r\n|\n|\r/.exec(this.rest);
      // A CR at the very end may be the first half of CRLF.
      if (end === null || (end[0] === "\r" && end.index === this.rest.length - 1)) return found;
      const line = this.rest.slice(0, end.index);
      this.rest = this.rest.slice(end.index + end[0].length);
      const event = this.take(line);
      if (event !== null) found.push(event);
    }
  }

  private take(line: string): ServerEvent | null {
    if (line === "") {
      const event = this.data.length > 0 ? { event: this.event || "message", data: this.data.join("\n"), id: this.id } : null;
      this.data = [];
      this.event = "";
      return event;
    }
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.data.push(value);
    else if (field === "event") this.event = value;
    else if (field === "id" && !value.includes("\0")) this.id = value;
    return null;
  }
}
