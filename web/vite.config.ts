import react from "@vitejs/plugin-react";
import { loadEnv } from "vite";
import { defineConfig } from "vitest/config";

// The server that the development server asks: a real `lodestream serve`, or `npm run mock`.
const server = loadEnv("", ".", "LODESTREAM_")["LODESTREAM_URL"] ?? "http://127.0.0.1:8470";

export default defineConfig({
  plugins: [react()],
  build: {
    outDir: "../src/lodestream/console/static",
    emptyOutDir: true,
    sourcemap: false,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: false,
    // The licences of what is built in ask to be shipped with it.
    license: { fileName: "licences.md" },
    // Which file needs which: tools/console.py counts what a route loads, and takes it away.
    manifest: true,
  },
  server: { proxy: Object.fromEntries(["/api", "/healthz", "/openapi.json"].map((path) => [path, server])) },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
});
