import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// One bundle for both fronts: the desktop window embeds it, the bridge's HTTP server serves it.
export default defineConfig(({ mode }) => ({
  plugins: [svelte()],
  build: { target: ["safari17.4", "chrome123"], chunkSizeWarningLimit: 1200 },
  // The tests render components in happy-dom; without this Svelte's server build is resolved.
  resolve: mode === "test" ? { conditions: ["browser"] } : {},
  test: { environment: "happy-dom", include: ["src/**/*.test.ts"], setupFiles: ["src/test-setup.ts"] },
}));
