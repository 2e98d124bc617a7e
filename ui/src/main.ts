import "@fontsource-variable/inter/wght.css";
import "@fontsource-variable/jetbrains-mono/wght.css";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/fields.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { beginTips } from "./parts/tip";

const target = document.getElementById("app");
beginTips();
if (target) mount(App, { target });
